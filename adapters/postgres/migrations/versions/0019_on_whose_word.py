"""What is to be erased names its approval, which the ledger has to prove."""

import sqlalchemy as sa
from alembic import op

revision = '0019'
down_revision = '0018'


def upgrade() -> None:
    op.add_column('erasure', sa.Column('approval', sa.Uuid(), nullable=True))
