"""Tunnel: one TCP service or Unix socket within reach of peers.

- ``protocol``: the side of the service.
- ``forwarder``: the side of the user: ``fastn-p2p forward``.
- ``splice``, ``sockets``: bytes between a socket and a session; sockets.
- ``service_address``: parse addresses.
- ``error_reporter``: rate-limited error messages.
"""
