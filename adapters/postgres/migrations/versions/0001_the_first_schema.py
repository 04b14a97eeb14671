"""The first schema, and what the application's role may do with it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None


def upgrade() -> None:
    op.create_table('checkpoint',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('root', sa.LargeBinary(), nullable=False),
    sa.Column('note', sa.LargeBinary(), nullable=False),
    sa.Column('batch', sa.Uuid(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('origin', 'size', name=op.f('pk_checkpoint')),
    sa.UniqueConstraint('batch', name=op.f('uq_checkpoint_batch'))
    )
    op.create_table('client',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('jwk', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('actors', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('scopes', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.Column('revoked', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_client'))
    )
    op.create_table('content',
    sa.Column('sender', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('part', sa.Text(), nullable=False),
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('wrapped', sa.LargeBinary(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('sender', 'id', 'part', name=op.f('pk_content'))
    )
    op.create_index('ix_content_generation', 'content', ['generation'], unique=False)
    op.create_table('entry',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('origin', 'index', name=op.f('pk_entry'))
    )
    op.create_table('epoch',
    sa.Column('generation', sa.Integer(), autoincrement=False, nullable=False),
    sa.PrimaryKeyConstraint('generation', name=op.f('pk_epoch'))
    )
    op.create_table('event',
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('counterpart', sa.Text(), nullable=False),
    sa.Column('message', sa.Uuid(), nullable=False),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_event'))
    )
    op.create_index('ix_event_message', 'event', ['message'], unique=False)
    op.create_table('idempotency',
    sa.Column('client', sa.Text(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('answer', sa.LargeBinary(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('client', 'key', name=op.f('pk_idempotency'))
    )
    op.create_index('ix_idempotency_at', 'idempotency', ['at'], unique=False)
    op.create_table('inbox',
    sa.Column('sender', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('received', sa.DateTime(timezone=True), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('content_c', sa.LargeBinary(), nullable=False),
    sa.Column('dispatched', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.PrimaryKeyConstraint('sender', 'id', name=op.f('pk_inbox'))
    )
    op.create_index('ix_inbox_thread', 'inbox', ['thread'], unique=False)
    op.create_index('ix_inbox_undispatched', 'inbox', ['received'], unique=False, postgresql_where=sa.text('not dispatched'))
    op.create_table('ledger_head',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('root', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('origin', name=op.f('pk_ledger_head'))
    )
    op.create_table('leg',
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('counterpart', sa.Text(), nullable=False),
    sa.Column('role', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('request', sa.Uuid(), nullable=False),
    sa.Column('opened', sa.DateTime(timezone=True), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('thread', 'counterpart', name=op.f('pk_leg'))
    )
    op.create_index('ix_leg_opened_thread', 'leg', ['opened', 'thread'], unique=False)
    op.create_table('outbox',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('recipient', sa.Text(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires', sa.DateTime(timezone=True), nullable=False),
    sa.Column('urgent', sa.Boolean(), nullable=False),
    sa.Column('pair_seq', sa.BigInteger(), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('content_c', sa.LargeBinary(), nullable=False),
    sa.Column('kid', sa.Text(), nullable=False),
    sa.Column('seal_kid', sa.Text(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('envelope', sa.LargeBinary(), nullable=True),
    sa.Column('due', sa.DateTime(timezone=True), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('leased', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_outbox'))
    )
    op.create_index('ix_outbox_queued', 'outbox', ['recipient', 'due'], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_index('ix_outbox_thread', 'outbox', ['thread'], unique=False)
    op.create_table('pair',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('recipient', sa.Text(), nullable=False),
    sa.Column('next', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('origin', 'recipient', name=op.f('pk_pair'))
    )
    op.create_table('peer_checkpoint',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('root', sa.LargeBinary(), nullable=False),
    sa.Column('note', sa.LargeBinary(), nullable=False),
    sa.Column('linked', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('seen', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('origin', 'size', name=op.f('pk_peer_checkpoint'))
    )
    op.create_index('ix_peer_checkpoint_linked', 'peer_checkpoint', ['origin', 'size'], unique=False, postgresql_where=sa.text('linked'))
    op.create_index('ix_peer_checkpoint_unlinked', 'peer_checkpoint', ['origin', 'size'], unique=False, postgresql_where=sa.text('not linked'))
    op.create_table('peer_named',
    sa.Column('member', sa.Text(), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('sizes', sa.ARRAY(sa.BigInteger()), nullable=False),
    sa.PrimaryKeyConstraint('member', 'origin', name=op.f('pk_peer_named'))
    )
    op.create_table('peer_proof',
    sa.Column('peer', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('path', sa.LargeBinary(), nullable=False),
    sa.Column('entry', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('digest', 'origin', 'index', name=op.f('pk_peer_proof'))
    )
    op.create_table('refusal',
    sa.Column('sender', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('code', sa.Text(), nullable=False),
    sa.Column('cause', sa.Text(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), nullable=False),
    sa.Column('content_c', sa.LargeBinary(), nullable=True),
    sa.PrimaryKeyConstraint('sender', 'id', 'digest', name=op.f('pk_refusal'))
    )
    op.create_index('ix_refusal_sender_at', 'refusal', ['sender', 'at'], unique=False)
    op.create_table('registry_record',
    sa.Column('ref', sa.Text(), nullable=False),
    sa.Column('serial', sa.Text(), nullable=False),
    sa.Column('k1', sa.Text(), nullable=False),
    sa.Column('k2', sa.Text(), nullable=False),
    sa.Column('trigrams', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('make', sa.Text(), nullable=False),
    sa.Column('make_key', sa.Text(), nullable=False),
    sa.Column('calibre', sa.Text(), nullable=False),
    sa.Column('weapon_type', sa.Text(), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.PrimaryKeyConstraint('ref', name=op.f('pk_registry_record'))
    )
    op.create_index('ix_registry_record_k1', 'registry_record', ['k1'], unique=False)
    op.create_index('ix_registry_record_k2', 'registry_record', ['k2'], unique=False)
    op.create_index('ix_registry_record_trigrams', 'registry_record', ['trigrams'], unique=False, postgresql_using='gin')
    op.create_table('review',
    sa.Column('sender', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('thread', sa.Uuid(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('candidates', sa.Text(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('closed', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.PrimaryKeyConstraint('sender', 'id', name=op.f('pk_review'))
    )
    op.create_index('ix_review_thread', 'review', ['thread'], unique=False)
    op.create_table('split_view',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('first', sa.LargeBinary(), nullable=False),
    sa.Column('second', sa.LargeBinary(), nullable=False),
    sa.Column('seen', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('origin', name=op.f('pk_split_view'))
    )
    op.create_table('tile',
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('level', sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column('index', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('origin', 'level', 'index', name=op.f('pk_tile'))
    )
    op.create_table('sealed',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('index', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', 'digest', name=op.f('pk_sealed'))
    )
    op.create_index('ix_peer_proof_origin_index', 'peer_proof', ['origin', 'index'], unique=False)
    op.create_index('ix_peer_proof_peer_id', 'peer_proof', ['peer', 'id'], unique=False)
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{app}"')
    op.execute(f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{app}"')
    op.execute(f'REVOKE UPDATE, DELETE ON entry, checkpoint, alembic_version FROM "{app}"')
    op.execute(f'REVOKE INSERT ON alembic_version FROM "{app}"')
    op.execute("INSERT INTO epoch (generation) VALUES (1)")
