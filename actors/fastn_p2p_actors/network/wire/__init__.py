"""The protocol between daemons, ALPN ``fastn-p2p/1``; docs/protocol.md specifies it.

- ``messages``: every message, limits and close codes.
- ``framing``: encode a frame, and decode a stream of frames.
"""
