"""The vault's mailbox: CURVE keys say which role a caller has.

- ``mailbox``: a libzmq ROUTER with CURVE.
- ``keys``: the keys of each role, made at each start of the daemon.
- ``zap_authenticator``: accept or reject a client's key (ZeroMQ RFC 27).
"""
