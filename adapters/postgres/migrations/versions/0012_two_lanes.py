"""Two lanes of the outbox, each in the order in which it is claimed: what is claimed costs the same however long the queue is."""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'


def upgrade() -> None:
    op.drop_index('ix_outbox_queued', table_name='outbox')
    for name, columns, where in (
        ('routine', ['recipient', 'due', 'id'], 'NOT urgent'), ('urgent', ['recipient', 'due', 'id'], 'urgent'),
        ('hastened', ['recipient'], 'hastened'), ('leased', ['leased'], 'leased IS NOT NULL'),
    ):
        op.create_index(f'ix_outbox_{name}', 'outbox', columns, unique=False, postgresql_where=sa.text(f"state = 'queued' AND {where}"))
