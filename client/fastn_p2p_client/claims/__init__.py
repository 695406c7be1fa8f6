"""Claims of retried calls, in a store that all daemons of an identity share. Needs the extra ``postgres`` or ``nats``.

- ``claims_url``: the URL of a store, and the permissions that it needs.
- ``call_claims``: claims of the calls of one binding.
- ``claim_store``: what a store can do.
- ``postgres_claims``: a table of a PostgreSQL database.
- ``nats_bucket``: a key-value bucket of a NATS server.
"""
