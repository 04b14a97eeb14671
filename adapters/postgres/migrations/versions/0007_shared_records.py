"""Records that members share, beside the own register; an index of runs of two and three characters."""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'


def upgrade() -> None:
    for name, kind, default in (
        ('owner', sa.Text(), ''), ('no_zeros', sa.Text(), ''), ('status', sa.Text(), ''), ('others', sa.ARRAY(sa.Text()), '{}'),
    ):
        op.add_column('registry_record', sa.Column(name, kind, server_default=default, nullable=False))
        op.alter_column('registry_record', name, server_default=None)
    op.add_column('registry_record', sa.Column('until', sa.Date(), nullable=True))
    op.add_column('registry_record', sa.Column('batch', sa.Uuid(), nullable=True))
    op.add_column('registry_record', sa.Column('said', sa.DateTime(timezone=True), server_default='epoch', nullable=False))
    op.alter_column('registry_record', 'said', server_default=None)
    op.add_column('registry_record', sa.Column('audience', sa.ARRAY(sa.Text()), nullable=True))
    op.drop_index('ix_registry_record_trigrams', table_name='registry_record')
    op.alter_column('registry_record', 'trigrams', new_column_name='grams')
    op.execute("UPDATE registry_record SET no_zeros = coalesce(nullif(ltrim(k1, '0'), ''), k1), grams = ARRAY("
               "SELECT DISTINCT substr(k1, i, n) FROM generate_series(2, 3) n, generate_series(1, greatest(length(k1) - n + 1, 0)) i)")
    op.drop_constraint('pk_registry_record', 'registry_record', type_='primary')
    op.create_primary_key('pk_registry_record', 'registry_record', ['owner', 'ref'])
    op.create_index('ix_registry_record_grams', 'registry_record', ['grams'], unique=False, postgresql_using='gin')
    op.create_index('ix_registry_record_others', 'registry_record', ['others'], unique=False, postgresql_using='gin')
    op.create_index('ix_registry_record_no_zeros', 'registry_record', ['no_zeros'], unique=False)
    op.create_index('ix_registry_record_batch', 'registry_record', ['batch'], unique=False, postgresql_where=sa.text('batch IS NOT NULL'))
