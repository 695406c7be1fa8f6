"""Code that commands share. Imports nothing of ``cli`` or ``protocols``.

- ``output``: results to standard output, messages to standard error.
- ``exit_codes``, ``options``: exit codes and their table; options and arguments of several commands.
- ``parameters``: how commands declare options and arguments.
- ``json_values``, ``formatting``, ``text_encoding``: JSON in and out; sizes, times, durations; UTF-8 in every locale.
- ``async_stdio``: standard input and output on the event loop.
- ``control_request``: one request to the daemon. ``connecting_notice``: a message if a peer is slow to connect.
- ``home_notice``: a message if another daemon is the home of a protocol.
- ``identity_restart``: a message if an identity's process was replaced.
- ``waiting_notice``: one line after a command about mails, file offers and access requests.
- ``confirmation``: ask before something is deleted.
- ``claims_option``: the option ``--claims`` of commands about protocols.
- ``daemon_settings``: the settings with which a daemon would start here.
- ``passphrases``, ``vault_request``, ``present_secret``: secrets for the vault, and requests to it.
- ``deferred_modules``: modules that are executed when they are used.
- ``early_signals``: signals that arrive while the program starts.
- ``program_restart``, ``supervisor_start``: restart this program; the supervisor without the command line.
- ``vault_at_start``, ``keyring_keys``: the vault's secret at the start of the daemon; keys in the desktop's keyring.
- ``users_at_start``: users of the daemon's processes, and the home given to them.
- ``backup_files``: files of backups.
- ``access_uses``: uses of a peer in access lists.
- ``process_snapshot``, ``host_routes``: read ``run/processes.json``; find out whether this machine has a network.
"""
