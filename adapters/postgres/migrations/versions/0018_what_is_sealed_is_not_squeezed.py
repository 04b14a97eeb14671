"""Ciphertext does not get shorter: trying to compress it was a sixth of what PostgreSQL spent on a message."""

from alembic import op

revision = '0018'
down_revision = '0017'

SEALED = (('content', 'sealed'), ('outbox', 'envelope'), ('relay', 'post'), ('relay', 'answer'))


def upgrade() -> None:
    for table, column in SEALED:
        op.execute(f'ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL')
