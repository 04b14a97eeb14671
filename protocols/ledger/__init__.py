"""The formats of the ledger: entry, merkle, note, checkpoint, tiles, proof, linking."""
