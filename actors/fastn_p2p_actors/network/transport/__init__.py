"""iroh: the endpoint of this daemon, rate limits of peers, and patches of the Python binding.

- ``endpoint``: bind, dial, accept.
- ``message_channel``: short messages over one stream, for a pairing.
- ``path_probe``: finds out whether an endpoint answers over other paths than the one that iroh uses.
- ``relay_measurement``: lets iroh choose another relay when the one that it uses is gone.
- ``address_order``: the most useful addresses first.
- ``peer_limits``: rate limits of handshakes and requests of peers.
- ``penalties``: handshakes of strangers that have abused connections are dropped for a while.
- ``iroh_errors``: meaning of iroh's errors: refused, closed by the peer, code of a stream.
- ``iroh_patches``: replacements of slow or faulty functions of the binding.
- ``rust_futures``, ``stream_calls``: polls its futures, and reads and writes its streams, without generated layers.
"""
