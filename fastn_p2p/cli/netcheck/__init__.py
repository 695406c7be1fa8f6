"""Network check behind ``fastn-p2p netcheck``.

Layout: ``check`` (one result), ``http_probe`` (one HTTP request), ``relays``, ``directories``, ``udp`` and
``lan`` (the checks), ``run`` (all of them, from the settings and the status of a running daemon).
"""
