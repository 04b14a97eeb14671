"""Legs are looked for by the message that opened them."""

from alembic import op

revision = '0006'
down_revision = '0005'


def upgrade() -> None:
    op.create_index('ix_leg_kind_opened', 'leg', ['kind', 'opened', 'thread'], unique=False)
