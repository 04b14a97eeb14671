"""What travels between nodes: message, envelope, request signature, the typed lines of a POST."""
