"""Modules that several protocols use; imports no protocol.

- ``change_signal``: a condition to wait on.
- ``path_names``: file names and paths of a peer that are safe to use.
- ``name_risks``: safe names that can still do harm, and are accepted by name only.
- ``splice``: copy bytes between a socket and a session.
- ``sockets``, ``service_address``: open sockets; parse addresses.
- ``target_service``: the one service of this machine that a binding makes reachable.
- ``binding_store``: the database of a binding, SQLite or PostgreSQL.
- ``accept_loop``: accept connections from a listener, until SIGTERM.
- ``error_reporter``: rate-limited error messages.
"""
