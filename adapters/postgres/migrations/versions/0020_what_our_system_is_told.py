"""Until when an arrived message is being told to the member's own system."""

import sqlalchemy as sa
from alembic import op

revision = '0020'
down_revision = '0019'


def upgrade() -> None:
    op.add_column('inbox', sa.Column('leased', sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        'ix_inbox_untold', 'inbox', [sa.text('leased NULLS FIRST'), 'origin', 'index'], unique=False, postgresql_where=sa.text('not dispatched')
    )
