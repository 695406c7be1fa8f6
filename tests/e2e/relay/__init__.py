"""Relay, directory and address discovery over real sockets, with real iroh endpoints."""
