"""What is to be erased names its approval, which the ledger has to prove; what the entry says of it is made when it is written."""

from alembic import op

revision = '0019'
down_revision = '0018'


def upgrade() -> None:
    op.execute('ALTER TABLE erasure ADD COLUMN approval UUID')
    for column in ('recipient', 'ground', 'content_c', 'until', 'authority_c'):
        op.drop_column('erasure', column)
