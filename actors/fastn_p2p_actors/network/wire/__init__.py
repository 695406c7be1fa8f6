"""The protocol between daemons, ALPN ``fastn-p2p/1``; docs/protocol.md specifies it.

- ``messages``: every message, limits, close codes, and frames.
"""
