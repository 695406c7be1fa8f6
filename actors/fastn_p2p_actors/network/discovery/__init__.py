"""From a name to a connection.

- ``router``: name, ID52 or ticket to key to connection.
- ``resolver``, ``host_directory``: endpoints of a key; records of daemons on this machine.
- ``identity_publisher``: fetch, renew and publish delegations and records.
- ``targets``: binding, connection or later attempt for a call, a session or a wait of a local program.
- ``search``: account of one search for a peer, for its error.
- ``online_waits``, ``online_probe``: programs that wait for a peer; probing where it may appear.
"""
