"""Contacts beside the address book.

- ``groups``: groups of peers, for access lists.
- ``invitation_store``: invitations of this daemon, and the permissions of those who have redeemed them.
- ``pending_peers``: strangers that were refused, for the owner to accept or block.
- ``block_list``: identities that the owner has blocked, and the endpoints through which only they speak.
- ``revocations``: identities that were revoked.
- ``lazy_file``: a file that is written some time after a change.
"""
