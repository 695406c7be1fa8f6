"""Tunnel: forward sessions of peers to one TCP service or Unix socket.

- ``protocol``: the protocol ``Tunnel``, on the machine of the service.
- ``forwarder``: ``fastn-p2p forward``, on the machine of the user.
- ``splice``: copy bytes between a socket and a session.
- ``sockets``, ``service_address``: open sockets; parse addresses.
- ``error_reporter``: rate-limited error messages.
"""
