"""Encrypted mailbox of the vault. A CURVE key gives each sender its role.

- ``mailbox``: a libzmq ROUTER with CURVE.
- ``curve_connection``: the transport of its clients, on the event loop.
- ``keys``: the keys of each role, generated at each start of the daemon.
- ``zap_authenticator``: accepts or rejects a sender's key (ZeroMQ RFC 27).
"""
