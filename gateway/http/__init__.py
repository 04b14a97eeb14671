"""Listeners: exchange, agency, ledger, operations. They see services and protocols, neither SQL nor keys."""
