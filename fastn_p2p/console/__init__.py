"""What commands share: output, exit codes, options, JSON. Imports nothing of ``cli`` or ``protocols``.

- ``output``: results to standard output, messages to standard error.
- ``exit_codes``, ``options``: exit codes and their table; options and arguments of several commands.
- ``json_values``, ``formatting``, ``text_encoding``: JSON in and out; sizes, times, durations; UTF-8 in any locale.
- ``async_stdio``: standard input and output on the event loop.
- ``control_request``: one request to the daemon; ``connecting_notice`` says that it takes long.
- ``confirmation``: a question before something is lost.
- ``process_file``, ``host_routes``: ``run/processes.json``; whether this machine has a network.
"""
