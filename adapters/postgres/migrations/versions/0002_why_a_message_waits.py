"""The problem code of the last attempt stands beside what waits in the outbox."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    op.add_column('outbox', sa.Column('problem', sa.Text(), nullable=True))
