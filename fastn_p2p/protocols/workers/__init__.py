"""Workers: handlers of a binding that run on other machines, through a NATS server.

- ``protocol``: the protocol class of such bindings, whatever their names are.
- ``bridge``: gives calls to workers, and watches them.
- ``routed_sessions``: gives sessions to workers, which connect to the daemon for them.
- ``worker_calls``: calls on their way to workers and back, and the workers that have them.
"""
