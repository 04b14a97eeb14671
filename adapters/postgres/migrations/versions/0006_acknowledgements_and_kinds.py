"""Until when a request is to be acknowledged; legs are looked for by the message that opened them."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'


def upgrade() -> None:
    op.add_column('leg', sa.Column('acknowledge_by', sa.DateTime(timezone=True), nullable=True))
    op.create_index('ix_leg_kind_opened', 'leg', ['kind', 'opened', 'thread'], unique=False)
