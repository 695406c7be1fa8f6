"""iroh: the endpoint of this daemon, rate limits of peers, and patches of the Python binding.

- ``endpoint``: bind, dial, accept.
- ``peer_limits``: rate limits of handshakes and requests of peers.
- ``iroh_patches``: replacements of slow or faulty functions of the binding.
"""
