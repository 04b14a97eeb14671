"""The one store, PostgreSQL: all SQL that writes is in here (docs/design.md section 5)."""
