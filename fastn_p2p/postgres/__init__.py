"""State of Mail and Chat in PostgreSQL instead of SQLite, if a binding's config says so. Needs the extra ``postgres``.

- ``postgres_dialect``: the SQL of SQLite as PostgreSQL wants it.
- ``mailbox_schema``: the schema that holds one mailbox; who holds it now; fencing.
- ``mailbox_marker``: the file in a binding's workspace that names its mailbox.
- ``mailbox_queries``: query and deletion of a mailbox that another process holds.
- ``postgres_store``: the store, with group commit, which reconnects by itself.
- ``sqlite_copy``: moves an SQLite file to PostgreSQL, and can go on where it was interrupted.
"""
