"""Why a message waits: the problem of its last attempt in the outbox, and what each sender has waiting in the inbox."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    op.add_column('outbox', sa.Column('problem', sa.Text(), nullable=True))
    op.create_index('ix_inbox_backlog', 'inbox', ['sender'], postgresql_where=sa.text('not dispatched'))
