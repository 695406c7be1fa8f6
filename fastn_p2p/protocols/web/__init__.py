"""Web: give peers access to one HTTP service of this machine, which learns who calls.

- ``protocol``: the protocol ``Web``, on the machine of the service.
- ``loopback_server``: ``fastn-p2p open``, on the machine of the user.
- ``http_splice``: a splice of a socket and a session whose requests get other heads on the way.
- ``origin_guard``: requests that pages of other sites may not make.
- ``socket_owner``: the user at the other end of a local connection.
"""
