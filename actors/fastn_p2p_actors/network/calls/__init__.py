"""Calls of local programs, and calls that local processes serve.

- ``outgoing``: calls that local programs make.
- ``earlier_attempts``: daemons that may have executed a retried call.
- ``peer_calls``: calls of peers, by their connection.
- ``incoming``: calls that local processes serve, from peers and from local programs.
- ``served_call``: one of these calls: its caller, its deadline, its memory.
"""
