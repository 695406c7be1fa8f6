"""A PostgreSQL server, for mailboxes and for claims of calls. Needs the extra ``postgres``.

- ``postgres_url``: the URL of a database, what may stand in it, and the permissions that it needs.
- ``error_advice``: errors of PostgreSQL in words.
"""
