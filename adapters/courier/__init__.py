"""What a courier carries, on any file system."""
