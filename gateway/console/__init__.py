"""Pages over the same services as the listeners; none yet."""
