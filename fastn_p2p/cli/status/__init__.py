"""Implementation of ``fastn-p2p status``.

- ``collect``: get the status from the gateway or, if it does not answer, from the supervisor's file.
- ``dashboard``, ``narrow_dashboard``: the status as text, also for a narrow terminal.
- ``live``: ``status --watch`` on a terminal.
"""
