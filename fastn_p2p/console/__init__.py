"""Code that commands share. Imports nothing of ``cli`` or ``protocols``.

- ``output``: results to standard output, messages to standard error.
- ``exit_codes``, ``options``: exit codes and their table; options and arguments of several commands.
- ``json_values``, ``formatting``, ``text_encoding``: JSON in and out; sizes, times, durations; UTF-8 in every locale.
- ``async_stdio``: standard input and output on the event loop.
- ``control_request``: one request to the daemon. ``connecting_notice``: a message if a peer is slow to connect.
- ``confirmation``: ask before something is deleted.
- ``daemon_settings``: the settings with which a daemon would start here.
- ``process_file``, ``host_routes``: read ``run/processes.json``; find out whether this machine has a network.
"""
