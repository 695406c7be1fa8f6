"""Runtime of every actor process.

- ``actor``: ``ActorContext``, and the life of an actor process.
- ``control_channel``: messages between the supervisor and its children.
- ``process_setup``: prctl, limits, malloc and signals of a new process.
- ``specs``: ``ActorSpec`` and the settings of each actor.
- ``separate_users``: users of their own for the processes, and how a process becomes one of them.
- ``grants``: MACs that prove a permission.
- ``mailbox``, ``mailbox_memory``: the Unix socket that an actor reads, and the memory limit of its connections.
- ``heap_watch``: returns free heap memory to the kernel.
- ``connection_limits``, ``rate_limiter``: limits of programs, and token buckets.
- ``log_files``, ``json_log``: one log file per process, as text or JSON.
- ``sampled_log``, ``journal``: sampling during floods, the journal of systemd.
- ``machine_name``: the name by which other daemons of an identity call this one.
- ``last_exit``, ``time_slices``: how the daemon ended last; long loops split over event loop iterations.
- ``site_packages``: packages installed, replaced or removed while a process runs.
- ``worker_process``: start of a one-shot worker.
- ``forked_work``: work that a fork of a process does, to take no memory of the process.
- ``identity_sockets``: connections that the supervisor makes for identities' processes.
- ``sandbox``: files, sockets and system calls that the kernel leaves a process.
- ``curve``: the vault's encrypted mailbox.
"""
