"""What arrived and was not dispatched in ledger order, so that what the feed has passed costs the same however much waits."""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'


def upgrade() -> None:
    op.drop_index('ix_inbox_undispatched', table_name='inbox')
    op.create_index('ix_inbox_undispatched', 'inbox', ['origin', 'index'], unique=False, postgresql_where=sa.text('not dispatched'))
    op.create_index('ix_event_received', 'event', ['seq'], unique=False, postgresql_where=sa.text("kind = 'received'"))
