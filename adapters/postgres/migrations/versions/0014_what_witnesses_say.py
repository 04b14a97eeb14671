"""Cosignatures of our checkpoints by other members."""

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'


def upgrade() -> None:
    op.create_table(
        'cosignature',
        sa.Column('origin', sa.Text(), nullable=False),
        sa.Column('size', sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column('witness', sa.Text(), nullable=False),
        sa.Column('lines', sa.LargeBinary(), nullable=False),
        sa.Column('at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('origin', 'size', 'witness', name=op.f('pk_cosignature')),
    )
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT ON cosignature TO "{app}"')
