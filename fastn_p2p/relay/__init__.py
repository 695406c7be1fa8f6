"""Relay, directory and address discovery in one process: ``fastn-p2p relay``.

Daemons that cannot reach each other directly exchange their encrypted packets through a relay, find each other's peer
records in a directory, and learn their outside address by address discovery. The process holds no key of an identity
and can read no packet.

- ``relay_server``: all of it in one process: start, reload, stop. ``config``: its settings.
- ``http_server``: connections of strangers and their limits; paths. ``relay_limits``: every number, and token buckets.
- ``datagram_relay``: life of one relay connection. ``handshake``, ``frames``: the bytes of iroh's relay protocol.
- ``client_connection``, ``client_registry``: one connected client; all of them, and datagrams between them.
- ``directory``, ``directory_store``: pkarr over HTTP; the packets in memory and in SQLite.
- ``address_discovery``, ``reporting_connection``: QUIC clients are told their observed address.
- ``tls_files``: certificate of the HTTP server and of address discovery.
- ``allowed_keys``: keys that may use the relay and publish. ``metrics``: counters. ``log_sampling``: a bounded log.

The relay protocol is iroh's (version 1 and 2), so that every iroh endpoint can use the relay.
"""
