"""The directory over TUF: the authority's publisher and every node's client (docs/protocol.md section 5)."""
