"""Identities, bindings and their permissions on disk.

- ``identity_store``: the directory ``identities/``.
- ``permission_store``: permissions that the owner has granted to bindings.
- ``atomic_files``: write, replace and delete files so that a crash leaves the old or the new state.
"""
