"""Identities and bindings on disk.

- ``identity_store``: the directory ``identities/``.
- ``atomic_files``: write, replace and delete files so that a crash leaves the old or the new state.
"""
