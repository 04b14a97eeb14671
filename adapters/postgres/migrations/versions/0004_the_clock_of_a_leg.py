"""What opened a leg, how far it went, and its clock: when an answer is due, how long it stood, what was asked."""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'


def upgrade() -> None:
    op.add_column('leg', sa.Column('kind', sa.Text(), server_default='trace.request', nullable=False))
    op.add_column('leg', sa.Column('hop', sa.Integer(), server_default='1', nullable=False))
    op.add_column('leg', sa.Column('stood_ms', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column('leg', sa.Column('rounds', sa.Integer(), server_default='0', nullable=False))
    for name in ('kind', 'hop', 'stood_ms', 'rounds'):
        op.alter_column('leg', name, server_default=None)
    for name in ('due', 'delayed', 'paused', 'expected', 'lapses'):
        op.add_column('leg', sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column('leg', sa.Column('question', sa.Uuid(), nullable=True))
    op.create_index('ix_leg_lapses', 'leg', ['lapses'], postgresql_where=sa.text('lapses IS NOT NULL'))
