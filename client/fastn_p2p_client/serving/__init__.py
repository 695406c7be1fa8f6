"""Run handlers: the same code in programs and in the daemon's identity processes.

- ``handlers``, ``annotations``, ``decoding``, ``handler_threads``: compile a function into a handler.
- ``handler_registry``: the decorators that register handlers.
- ``binding``: one binding that this process serves.
- ``dispatcher``, ``session_dispatcher``, ``start_queue``: requests in, replies out; the same for sessions.
- ``forwarded_call``: calls that a protocol passes on to other processes.
- ``idempotency``: execute a retried call once.
- ``protocol_lifecycle``, ``hooks``: load, check, activate, reload and stop a protocol class, within time limits.
- ``server``, ``binding_server``: ``listen`` serves as one identity, ``serve_all`` every declared binding.
- ``remote_server``, ``worker_connection``, ``tcp_options``: ``listen_remotely`` serves a binding of another machine.
- ``async_server``: start and end of all of them.
- ``registration``, ``registration_loop``, ``registrar``: register bindings with the network process, and again later.
- ``followed_binding``: one declared binding, kept as its owner has declared it.
- ``termination``: Ctrl-C and SIGTERM.
"""
