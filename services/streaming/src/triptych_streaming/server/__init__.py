"""The HTTP server: listening, TLS, connections, and the sessions that they become."""
