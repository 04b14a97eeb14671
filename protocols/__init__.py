"""What is agreed, on the wire and inside: pure, synchronous, total."""
