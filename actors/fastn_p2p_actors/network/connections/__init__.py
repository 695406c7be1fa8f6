"""QUIC connections to peer daemons, and what they carry.

- ``connection``: ``PeerConnection``: life and counters. ``connection_tasks``: reads its channel, accepts its streams.
- ``message_dispatcher``: hands each message of the peer daemon to the part that handles it.
- ``events``: callbacks of a connection for its owner.
- ``connection_requests``: calls, in both directions: send, check, answer.
- ``connection_memory``: memory that the peer makes this process hold over one connection.
- ``call_channel``: write queue and reader of the first stream, which carries calls.
- ``keepalive``: ping after silence, report more of it.
- ``pool``: one connection per daemon, dialled once, closed when idle. ``endpoint_dial``: tries the paths to one.
- ``identity_exchange``, ``proven_identities``: prove and verify who speaks over the connection.
- ``bulk_streams``: large payloads on their own streams.
- ``peer_memory``, ``memory_usage``, ``unread_bytes``: memory that peers may make this process hold over connections.
- ``payload_memory``, ``backpressure``: complete payloads that wait here; local processes that read slowly.
- ``step_budget``: work that strangers may cause in one iteration of the event loop.
- ``overload_pause``: slower reading of a stranger whose requests are above a limit.
- ``connection_sessions``, ``session_handshake``: sessions of a connection, and how one opens.
- ``session_streams``, ``session_pausing``: opens and accepts their streams; pauses those that are not read.
- ``stream_shutdown``: frees the buffers of streams when a connection is aborted.
- ``remote_leg``, ``leg_writer``, ``quic_stream``: the leg of a session towards a peer, its writing half, its stream.
- ``coalescing_reader``, ``stream_pacing``: small reads merged, writes paced.
- ``address_report``: tells the peer daemon the address that this daemon sees of it.
- ``network_path``, ``round_trip``: direct or relayed, address, round-trip time; the time of a ping.
- ``reconnect_list``: daemons to reconnect to after a crash.
"""
