"""Calls through this daemon.

- ``outgoing``: calls that local programs make.
- ``incoming``: calls that local processes serve.
"""
