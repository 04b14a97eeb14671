"""Whether the question asked last waits for its answer: in a silent leg nothing else tells; one too many may be answered again."""

import sqlalchemy as sa
from alembic import op

revision = '0021'
down_revision = '0020'


def upgrade() -> None:
    op.add_column('leg', sa.Column('unanswered', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.execute("UPDATE leg SET unanswered = true WHERE question IS NOT NULL AND state IN ('CLARIFYING', 'SILENT')")
