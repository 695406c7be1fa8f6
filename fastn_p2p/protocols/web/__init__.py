"""Web: give peers access to one HTTP service of this machine, which learns who calls.

- ``protocol``: the protocol ``Web``, on the machine of the service.
- ``loopback_server``: ``fastn-p2p open``, on the machine of the user.
- ``shared_session``: the session that connections of ``open`` share, each as a channel of it.
- ``socket_channel``: a connection and its channel; ``client_channel``, ``service_channel``: that on either machine.
- ``shared_connections``: the connections of peers that share sessions, on the machine of the service.
- ``http_splice``: a splice of a socket and a session whose requests get other heads on the way.
- ``origin_guard``: requests that pages of other sites may not make.
- ``socket_owner``: the user at the other end of a local connection.
"""
