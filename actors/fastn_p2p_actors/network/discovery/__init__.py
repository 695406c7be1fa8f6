"""From a name to a connection.

- ``router``: from a name, an ID52 or a ticket to a key, and to a connection.
- ``resolver``, ``host_directory``: endpoints of a key; records of daemons on this machine.
- ``record_source``, ``record_finder``: places with records, and lookups in all of them; ``lan``: the one of the LAN.
- ``identity_publisher``: fetches, renews and publishes delegations and records.
- ``targets``: binding, connection or later attempt for a call, a session or a wait of a local program.
- ``search``: attempts to reach one peer, for the error message.
- ``online_waits``, ``online_probe``: programs that wait for a peer; probing where it may appear.
"""
