"""What a node plugs into: database, peers, directory, backends, courier (docs/design.md section 4)."""
