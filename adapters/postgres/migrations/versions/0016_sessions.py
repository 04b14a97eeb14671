"""Sessions of people at the console, and the one-time links that open them; only their digests."""

import sqlalchemy as sa
from alembic import op

revision = '0016'
down_revision = '0015'


def upgrade() -> None:
    op.create_table(
        'session',
        sa.Column('id', sa.LargeBinary(), nullable=False),
        sa.Column('client', sa.Text(), nullable=False),
        sa.Column('actor', sa.Text(), nullable=False),
        sa.Column('scopes', sa.ARRAY(sa.Text()), nullable=False),
        sa.Column('link', sa.Boolean(), nullable=False),
        sa.Column('expires', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_session')),
    )
    app = op.get_bind().scalar(sa.text("select current_database() || '_app'"))
    op.execute(f'GRANT SELECT, INSERT, DELETE ON session TO "{app}"')
