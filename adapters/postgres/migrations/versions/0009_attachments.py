"""Attachments, in pieces of 1 MiB."""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'


def upgrade() -> None:
    op.create_table('blob',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=True),
    sa.Column('size', sa.BigInteger(), nullable=True),
    sa.Column('held', sa.BigInteger(), nullable=False),
    sa.Column('whole', sa.Boolean(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_blob')),
    sa.UniqueConstraint('owner', 'digest', name=op.f('uq_blob_owner_digest'))
    )
    op.create_index('ix_blob_digest', 'blob', ['digest'], unique=False, postgresql_where=sa.text('whole'))
    op.create_index('ix_blob_at', 'blob', ['at'], unique=False)
    op.create_table('piece',
    sa.Column('blob', sa.Uuid(), nullable=False),
    sa.Column('n', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('blob', 'n', name=op.f('pk_piece'))
    )
    op.add_column('relay', sa.Column('problem', sa.Text(), nullable=True))
    op.execute('ALTER TABLE piece ALTER COLUMN data SET STORAGE EXTERNAL')
    op.create_index('ix_content_attachment', 'content', ['part'], unique=False, postgresql_where=sa.text("part ^@ '@'"))
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON blob, piece TO "{app}"')
