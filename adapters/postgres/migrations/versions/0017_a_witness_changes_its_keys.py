"""A cosignature under a witness's former keys gives way to one under its present keys."""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0016'


def upgrade() -> None:
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT UPDATE (lines, at) ON cosignature TO "{app}"')
