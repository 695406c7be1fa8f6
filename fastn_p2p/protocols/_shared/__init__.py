"""What several protocols use; imports no protocol.

- ``sqlite_store``: a database on a thread of its own, with group commit.
- ``change_signal``: a condition to wait on.
- ``path_names``, ``name_risks``: which file names of a peer are safe, and which are taken by name only.
"""
