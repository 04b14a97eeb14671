"""The one store, PostgreSQL: all SQL that writes is in here (DESIGN.md section 5)."""
