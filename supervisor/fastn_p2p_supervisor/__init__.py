"""Supervisor: starts, watches and restarts the daemon's processes, and does nothing else.

It binds no socket that a program can reach, parses no data of programs or peers, and runs no protocol code.

- ``daemon``: from the start of the command to its exit code. Begin here.
- ``home_lock``: directories of the home, the lock that allows one daemon, stale sockets.
- ``home_format``: the number of the home's format, and the steps from older ones.
- ``user_names``, ``home_owners``: users of their own for the processes, and the home given to them and back.
- ``actor_specs``: the actors, with their settings and keys.
- ``process_tree``: all children: start and stop order, one-for-one restarts, requests of the gateway.
- ``child``: one child: its process, heartbeats and restarts. ``child_observer``: who is told of them.
- ``process_limits``: resource limits of a process that runs already.
- ``restart_policy``: how often and how soon to restart; time limits. Pure.
- ``fork_server``, ``fork_server_preload``: where child processes come from.
- ``process_order``: what the supervisor tells a new child process to run.
- ``fork_heap``: the fork server's heap, arranged so that they share most of it.
- ``one_shot_process``: a process that runs protocol code once, for the gateway.
- ``descriptor_broker``: descriptors that sandboxes keep closed, and children may have all the same.
- ``orphan_reaper``, ``descendants``: processes that protocols start and leave behind.
- ``process_file``: ``run/processes.json``.
- ``sd_notify``: states and watchdog pings for a service manager.
"""
