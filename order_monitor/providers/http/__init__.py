"""The HTTP layer: addresses, proxies, TLS, one connection per question, and names for failures."""
