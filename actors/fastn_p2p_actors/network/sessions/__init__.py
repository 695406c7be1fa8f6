"""Sessions that pass through this daemon.

- ``manager``: open, accept and find sessions.
- ``opening``: a session that is not open yet, and its deadline.
- ``session_offers``: offer a session to the process that serves its binding.
- ``local_leg``: leg of a local process; the leg of a peer is ``connections/remote_leg``.
- ``relay``: pass bytes and credit between the two legs of a session, and enforce flow control.
- ``memory_sharing``: memory that sessions share with local processes.
- ``session_memory``: memory of payloads until the session is open; backpressure of the processes.
- ``revocation``: end sessions whose permission is revoked.
"""
