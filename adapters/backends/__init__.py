"""Ways out of the process to the member's own system."""
