"""Records of identities on the LAN, by multicast DNS (RFC 6762, RFC 6763).

- ``lan_source``: the record source: announces, answers, asks.
- ``messages``: the DNS messages.
- ``multicast``: sends and receives on every interface, within a budget of processor time.
- ``packet_filter``: lets the kernel drop packets about other identities.
- ``interfaces``: interfaces that take part.

No engine of a library: a daemon must neither keep nor parse what others on a LAN say. ``messages.labels_in`` finds in
microseconds that a packet is of no interest; nothing of it is kept. Measured with python-zeroconf 0.154: 5.6 MB and
37 ms at start; a packet of 400 records takes 1.7 ms of the event loop, without a limit of their number; its cache takes
10,000 records of up to 9 KB.
"""
