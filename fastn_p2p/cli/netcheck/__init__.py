"""Network check behind ``fastn-p2p netcheck``.

Layout: ``check`` (one result), ``time_limit`` (blocking steps with a time limit), ``http_probe`` (one HTTP request),
``relays``, ``directories``, ``udp`` and ``lan`` (the checks), ``run`` (all of them, from the settings and the status of
a running daemon).
"""
