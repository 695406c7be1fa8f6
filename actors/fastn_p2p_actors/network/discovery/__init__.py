"""From a name to a connection.

- ``router``: from a name, an ID52 or a ticket to a key, and to a connection.
- ``resolver``, ``host_directory``: endpoints of a key; records of daemons on this machine.
- ``candidate_race``: tries the endpoints of a peer side by side.
- ``record_source``, ``record_finder``: places where records are published and looked for, asked all at once.
- ``lan``: the source of the LAN.
- ``directory_source``, ``directory_client``, ``directory_set``: one directory, its requests, those of the settings.
- ``identity_publisher``: brings identities online, and renews their delegations.
- ``record_publisher``: signs their records, and publishes them on this machine and to the sources.
- ``due_times``: when something is to be done for each of many keys.
- ``missing_bindings``: what one daemon of an identity does not serve, while another one may.
- ``answered_bindings``: bindings of peers that a daemon has served.
- ``spread_bindings``: bindings of peers whose requests go to all daemons that serve them.
- ``silent_connections``, ``replica_failover``: another path, or another daemon, when a peer daemon does not answer.
- ``local_addresses``: addresses of this machine, and notice of their changes.
- ``targets``: binding, connection or later attempt for a call, a session or a wait of a local program.
- ``search``: attempts to reach one peer, for the error message.
- ``peer_trace``, ``access_probe``: each step to a peer, for ``ping`` and ``explain``; whether it would let a caller in.
- ``online_waits``, ``online_probe``: programs that wait for a peer; probing where it may appear.
- ``outside_addresses``, ``reported_addresses``, ``relay_address_query``: addresses outside of a NAT.
- ``recent_peers``: peers that are connected again after a restart.
"""
