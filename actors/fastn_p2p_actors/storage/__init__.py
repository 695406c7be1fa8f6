"""Identities, bindings, their permissions, replicas and invitations on disk.

- ``identity_store``: the directory ``identities/``.
- ``permission_store``: permissions that the owner has granted to bindings.
- ``worker_token_store``: tokens of workers on other machines.
- ``invitation_file``: invitations of this daemon, with their bearers.
- ``enrolled_replicas``: other daemons that may speak for an identity, and the homes of its bindings.
- ``replica_reports``: where those daemons were when they reported last.
- ``shared_directories``: directories of identities that have users of their own.
- ``atomic_files``: write, replace and delete files so that a crash leaves the old or the new state.
"""
