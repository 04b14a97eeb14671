"""Which process of the node claimed a message, and whether a person hastened it."""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'


def upgrade() -> None:
    op.add_column('outbox', sa.Column('lessee', sa.Text(), nullable=True))
    op.add_column('outbox', sa.Column('hastened', sa.Boolean(), server_default=sa.text('false'), nullable=False))
