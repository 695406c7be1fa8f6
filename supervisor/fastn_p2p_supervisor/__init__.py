"""The supervisor: starts the daemon's processes, watches them, starts them again, and does nothing else.

It binds no socket that a program could reach, parses nothing that a program or a peer has sent, and runs no protocol
code: whatever a child does, it lives on.

Layout
------

``daemon.py``
    ``run``: from the start of the command to its exit code. Begin here.
``home_lock.py``
    The home's directories, the lock that makes the daemon the only one, stale sockets.
``actor_specs.py``
    Which actors there are, with the settings and keys that each is given.
``process_tree.py``
    All children: start and stop order, one-for-one restarts, answers to the gateway.
``child.py``
    One child: its process, its heartbeats, its restarts.
``allowed_requests.py``
    Which child may send which request; everything else is denied.
``restart_policy.py``
    How often and how soon something is started again; how long the supervisor waits. Pure.
``fork_server.py``, ``fork_server_preload.py``
    The fork server: where processes come from, and how they end with the supervisor.
``orphan_reaper.py``, ``descendants.py``
    Processes that protocols have started and not ended.
``process_file.py``
    ``run/tree.json``.
``sd_notify.py``
    States and watchdog pings for a service manager.

The children's side is ``fastn_p2p_actors.runtime.actor``, and the conversation is
``fastn_p2p_actors.runtime.control_channel``.
"""
