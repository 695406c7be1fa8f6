"""pyzmq."""
