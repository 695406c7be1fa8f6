"""iroh: the endpoint of this daemon, and repairs of the binding.

- ``endpoint``: bind, dial, accept.
- ``peer_limits``: what peers may cause per second.
- ``iroh_patches``: replacements of slow or faulty functions of the binding.
"""
