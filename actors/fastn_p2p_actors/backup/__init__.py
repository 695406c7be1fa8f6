"""Content of a backup: an archive of the files of a home, which the vault encrypts together with the keys.

The archive is a tar file (POSIX ustar), so that ``age -d BACKUP | tar -t`` lists it without this program::

    backup.json                                           Manifest; always the first file
    identities/<name>/seed                                secret key: the Ed25519 seed, 64 hexadecimal digits
    identities/<name>/revocation.json                     its revocation, if it was revoked
    identities/<name>/replicas.json                       enrolled replicas and homes, if there are any
    identities/<name>/replica-reports.json                where the replicas were when they reported last
    identities/<name>/identity.json                       as in the home
    identities/<name>/permissions.json
    identities/<name>/protocols/<Protocol>/<instance>/config.json
    peers/<name>.json                                     the address book, as in the home
    contacts/groups.json, contacts/blocked.json, contacts/revoked.json, contacts/invitations.json

The first four are written by the vault. Readers skip files that they do not know.

- ``archive``: paths, the manifest, and the tar format.
- ``collection``: the files of a home that have no secret key.
- ``contents``: those files, decoded.
"""
