"""What waits for a second person."""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    op.create_table('approval',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('act', sa.Text(), nullable=False),
    sa.Column('client', sa.Text(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('asked', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ruling', sa.Text(), nullable=False),
    sa.Column('ruled_client', sa.Text(), nullable=False),
    sa.Column('ruled_actor', sa.Text(), nullable=False),
    sa.Column('ruled', sa.DateTime(timezone=True), nullable=True),
    sa.Column('used', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_approval'))
    )
    op.create_index('ix_approval_asked', 'approval', ['client', 'actor', 'asked'], unique=False)
    op.create_index('ix_approval_waiting', 'approval', ['asked', 'id'], unique=False, postgresql_where=sa.text("ruling = ''"))
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, UPDATE ON approval TO "{app}"')
