"""Local files of a transfer, used by both sides.

- ``safe_tree``: a directory that no symbolic link leads out of.
- ``safe_paths``: paths of a peer, checked.
- ``path_set``: paths of one transfer; finds those that are too much alike.
- ``walk``: everything below a directory, and one directory a page at a time.
- ``source_file``: a file that is read and hashed for the peer.
- ``checkpoints``: states of hashes, so that no prefix of a file is hashed twice.
- ``work_pool``: threads for work that peers cause, with a fair share for each peer.
- ``linux_syscalls``: two system calls.
"""
