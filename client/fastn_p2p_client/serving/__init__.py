"""Run handlers: the same code in programs and in the daemon's identity processes.

- ``handlers``, ``annotations``, ``decoding``, ``handler_threads``: compile a function into a handler by its
annotations;
  decode what it takes; run it.
- ``binding``: the handlers of one protocol instance.
- ``dispatcher``, ``session_dispatcher``: requests in, replies out; the same for sessions.
- ``start_queue``: handlers that wait for their start, so that reading goes on.
- ``idempotency``: execute a retried call once.
- ``protocol_lifecycle``: load, check, activate, reload and stop a protocol class.
- ``server``, ``binding_server``: ``listen`` serves as one identity, ``serve_all`` every declared binding.
- ``registration``, ``followed_binding``: keep the network process and the declared bindings in line.
- ``termination``: what Ctrl-C and SIGTERM do to a program that serves.
"""
