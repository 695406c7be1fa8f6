"""Calls of local programs, and calls that local processes serve.

- ``outgoing``: calls that local programs make.
- ``incoming``: calls that local processes serve.
"""
