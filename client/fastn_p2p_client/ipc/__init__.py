"""The local protocol: messages between programs and the daemon's processes over Unix sockets. docs/protocol.md
specifies it.

- ``messages``: every message on a local socket.
- ``transport``: how bytes get there: ZMTP 3.1 on the event loop (``native``), or libzmq (``pyzmq``).
- ``reconnecting``: a connection that is made again when it ends.
- ``request_channel``: requests with deadlines and correlation ids over one connection.
- ``deadlines``: one timer for many deadlines.
- ``latency_trace``: optional time stamps of one call at each hop.
"""
