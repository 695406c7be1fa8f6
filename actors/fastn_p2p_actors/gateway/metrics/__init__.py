"""Metrics of the daemon in the text format of Prometheus.

Layout: ``metric_catalogue`` (name, kind, labels and meaning of each), ``samples`` (values, from the status and the
figures of the network process), ``page`` (the text; it alone imports ``prometheus_client``, 2.2 MB, when a page is
first asked for), ``metrics_server`` (HTTP on loopback or on a Unix socket, if the settings want it).
"""
