"""Makes environments on a host: reads locks, fetches, uploads what is missing, builds once, verifies."""
