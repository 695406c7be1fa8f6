"""Examination behind ``fastn-p2p doctor``, with and without a running daemon.

Layout: ``home_directory`` (home, permissions, sockets, disk), ``machine_limits`` (limits of processes, memory, UDP
buffers), ``kernel`` (sandbox, netlink, scheduler, clock), ``software`` (Python and libraries), ``daemon_state`` (its
processes, vault and warnings), ``examination`` (all of them, settings, and ``netcheck``). A result is a ``Check``, as
in ``netcheck``.
"""
