"""Going out to peers: the HTTP client side of the exchange."""
