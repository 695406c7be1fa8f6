"""Behind ``fastn-p2p status``.

- ``collect``: ask the daemon; without it, read the supervisor's file.
- ``dashboard``, ``narrow_dashboard``: the text, also for a narrow terminal.
- ``live``: ``status --watch``.
"""
