"""Code of the daemon's processes. The first four folders are processes, the others are shared.

- ``vault``: the only process that holds secret keys of identities.
- ``gateway``: ``control.sock``; commands of programs and of the command line.
- ``network``: the only process that talks to the internet.
- ``identity``: one process per online identity; the only one that runs protocol code.
- ``runtime``: what every actor process shares.
- ``storage``: identities and bindings on disk.
- ``credentials``: delegations and peer records, signed by identities.
- ``backup``: the content of a backup, without keys.
- ``pairing``: two owners become peers by four words; runs in the process of a command.
- ``daemon_settings``: ``config.toml``, environment and command line.
- ``installed_protocols``: protocols found by entry point.
"""
