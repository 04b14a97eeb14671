"""What a node plugs into: database, peers, directory, backends, courier (DESIGN.md section 4)."""
