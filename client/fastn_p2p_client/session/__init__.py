"""Sessions: one bidirectional byte stream with flow control.

- ``session``: ``Session``, with the methods of programs.
- ``session_state``: its state machine: credit, windows, ends, messages.
- ``shared_memory``: memory that a session shares with the network process; ``memory_request`` asks for it.
- ``blocking_session``: the same without ``await``.
- ``copy``: copy between a session and files or streams.
- ``framing``: length-prefixed messages on a session.
- ``client_sessions``: the sessions that one program has opened.
"""
