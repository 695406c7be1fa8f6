"""The local protocol, which docs/protocol.md specifies: messages over Unix sockets.

Programs and all processes of the daemon use it. This package is internal.

- ``messages``: every message on a local socket.
- ``transport``: ZMTP 3.1 on the event loop (``native``), or libzmq (``pyzmq``).
- ``unix_sockets``: connections to Unix sockets, made here or handed over by the supervisor.
- ``reconnecting``: a ZMTP connection that is made again when it ends.
- ``version_range``: which versions of a protocol two sides speak, and the one that they use.
- ``request_channel``: requests with deadlines and correlation ids over one connection.
- ``descriptors``: descriptors that the network process hands over.
- ``deadlines``: one timer for many deadlines.
- ``message_cache``: decoded headers of messages, by their bytes.
- ``latency_trace``: optional time stamps of one call at each hop.
"""
