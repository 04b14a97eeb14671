"""Which process of the node claimed a message."""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'


def upgrade() -> None:
    op.add_column('outbox', sa.Column('lessee', sa.Text(), nullable=True))
