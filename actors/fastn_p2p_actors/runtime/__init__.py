"""What every actor process shares.

- ``actor``: ``ActorContext``, and the life of an actor process.
- ``control_channel``: messages between the supervisor and its children.
- ``process_setup``: prctl, limits, malloc and signals of a new process.
- ``specs``: ``ActorSpec`` and the settings of each actor.
- ``grants``: MACs that prove a permission.
- ``mailbox``, ``mailbox_memory``: the Unix socket that an actor reads, and the memory that its connections may hold.
- ``heap_watch``: gives the heap's free memory back to the system.
- ``connection_limits``, ``rate_limiter``: limits of programs, and token buckets.
- ``log_files``, ``sampled_log``: one log file per process; messages that may come often.
- ``last_exit``, ``loop_turns``: how the daemon ended last; long loops, spread over turns of the event loop.
- ``site_packages``: packages that are installed, replaced or removed while a process runs.
- ``curve``: the vault's encrypted mailbox.
"""
