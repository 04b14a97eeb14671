"""How many messages a leg has, and an index of entries by the message that they are about."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    op.add_column('leg', sa.Column('messages', sa.Integer(), server_default='1', nullable=False))
    op.alter_column('leg', 'messages', server_default=None)
    op.execute(
        "CREATE INDEX ix_entry_message ON entry "
        """(origin, (substring(encode(data, 'escape'), '"id":"([^"]*)"')))"""
    )
