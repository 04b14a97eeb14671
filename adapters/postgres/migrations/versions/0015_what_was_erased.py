"""What is to be erased and what was; until when content may be kept; since when a generation is open."""

import sqlalchemy as sa
from alembic import op

revision = '0015'
down_revision = '0014'


def upgrade() -> None:
    op.create_table(
        'erasure',
        sa.Column('sender', sa.Text(), nullable=False),
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('part', sa.Text(), nullable=False),
        sa.Column('thread', sa.Uuid(), nullable=False),
        sa.Column('recipient', sa.Text(), nullable=False),
        sa.Column('ground', sa.Text(), nullable=False),
        sa.Column('content_c', sa.LargeBinary(), nullable=False),
        sa.Column('until', sa.Date(), nullable=False),
        sa.Column('authority_c', sa.LargeBinary(), nullable=True),
        sa.Column('done', sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint('sender', 'id', 'part', name=op.f('pk_erasure')),
    )
    op.create_index('ix_erasure_pending', 'erasure', ['id'], unique=False, postgresql_where=sa.text('NOT done'))
    op.create_index('ix_erasure_thread', 'erasure', ['thread'], unique=False)
    op.add_column('content', sa.Column('until', sa.Date(), nullable=True))
    op.create_index('ix_content_until', 'content', ['until'], unique=False, postgresql_where=sa.text("part = '' AND until IS NOT NULL"))
    op.create_index('ix_inbox_tightened', 'inbox', ['thread'], unique=False, postgresql_where=sa.text("type = 'handling.change'"))
    op.add_column('epoch', sa.Column('opened', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False))
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, UPDATE ON erasure TO "{app}"')
