"""A NATS server, for workers and for claims of calls. Needs the extra ``nats``.

- ``nats_server``: address, credentials and CA of a NATS server.
- ``nats_connection``: makes and closes one connection, and says in words why there is none.
- ``direct_client``: nats-py's client without its queues.
"""
