"""The process: settings, composition, the node's life, the command line."""
