"""Use cases, one verb a file; they know only `protocols` and its ports."""
