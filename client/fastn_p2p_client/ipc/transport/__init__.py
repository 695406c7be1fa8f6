"""Transports of the local protocol, behind one interface.

- ``base``: the interface.
- ``native``: ZMTP 3.1 on the event loop; the default.
- ``pyzmq``: libzmq.
"""
