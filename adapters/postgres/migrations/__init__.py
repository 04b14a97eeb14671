"""Alembic's environment and the schema's versions; run as the owner role."""
