"""Replicas: one identity at several daemons. docs/replicas.md says what they promise.

- ``owned_replicas``: at the daemon that has the key. Other daemons report to it and get delegations of its vault.
- ``joined_identities``: at the other daemons. They report to the owner's daemon, and serve what it grants.
- ``joined_identity``: one of those identities, on disk and in memory.
- ``owner_exchange``: which daemon is the owner's, when a backup was restored at another one.
- ``replica_set``: all of them. ``replica_grant``: what a report is answered with.
- ``freeze_watch``: whether this process has run all the time.
- ``home_notices``: tell local processes whether this daemon is the home of what they serve.
"""
