"""Replicas: one identity at several daemons. docs/replicas.md says what they promise.

- ``owned_replicas``: at the daemon that has the key. Other daemons report to it and get delegations of its vault.
- ``joined_identities``: at the other daemons. They report to the owner's daemon, and serve what it grants.
- ``replica_set``: both of them. ``replica_grant``: what a report is answered with.
- ``freeze_watch``: whether this process has run all the time.
- ``home_notices``: tell local processes whether this daemon is the home of what they serve.
"""
