"""Parcels that a hub carries, and receipts that go by courier."""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'


def upgrade() -> None:
    op.create_table('relay',
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('sender', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('recipient', sa.Text(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires', sa.DateTime(timezone=True), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), nullable=False),
    sa.Column('post', sa.LargeBinary(), nullable=True),
    sa.Column('due', sa.DateTime(timezone=True), nullable=False),
    sa.Column('answer', sa.LargeBinary(), nullable=True),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_relay'))
    )
    op.create_index('ix_relay_due', 'relay', ['recipient', 'due'], unique=False, postgresql_where=sa.text('answer IS NULL'))
    op.create_index('ix_relay_sender_id', 'relay', ['sender', 'id'], unique=False)
    op.create_index('ix_relay_backlog', 'relay', ['sender'], unique=False, postgresql_where=sa.text('answer IS NULL'))
    op.create_index('ix_relay_expires', 'relay', ['expires'], unique=False)
    op.create_table('owed',
    sa.Column('peer', sa.Text(), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('peer', 'origin', 'index', name=op.f('pk_owed'))
    )
    op.create_index('ix_owed_at', 'owed', ['at'], unique=False)
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON relay, owed TO "{app}"')
