"""Whether the question asked last waits for its answer, and how late the request came: `due` is as it was asked for from now on."""

import sqlalchemy as sa
from alembic import op

revision = '0021'
down_revision = '0020'


def upgrade() -> None:
    op.add_column('leg', sa.Column('late_ms', sa.BigInteger(), nullable=True))
    op.add_column('leg', sa.Column('unanswered', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.execute("UPDATE leg SET late_ms = 0 WHERE role = 'answerer' OR state NOT IN ('SENT', 'FAILED')")
    op.execute(
        "UPDATE leg l SET unanswered = true WHERE question IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM inbox m WHERE m.thread = l.thread AND m.sender = l.counterpart "
        "AND m.type = 'trace.clarification-answer' AND m.id > l.question) "
        "AND NOT EXISTS (SELECT FROM outbox m WHERE m.thread = l.thread AND m.recipient = l.counterpart "
        "AND m.type = 'trace.clarification-answer' AND m.id > l.question)"
    )
