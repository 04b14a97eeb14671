"""The directory over TUF: the authority's publisher and every node's client (PROTOCOL.md section 5)."""
