"""Tunnel: forward sessions of peers to one TCP service or Unix socket.

- ``protocol``: the protocol ``Tunnel``, on the machine of the service.
- ``forwarder``: ``fastn-p2p forward``, on the machine of the user.
"""
