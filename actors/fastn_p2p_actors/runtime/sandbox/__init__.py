"""Sandbox of a process: files, sockets, signals and system calls that the kernel leaves it.

- ``sandbox``: ``Sandbox`` and ``enter``, which applies one and tests that it holds.
- ``states``: words for how far a process is confined.
- ``roles``: the sandbox of each of the daemon's processes.
- ``granted_paths``: paths of bindings, without those that their code could replace.
- ``replaced_files``: paths that lead to other files than when a process entered its sandbox.
- ``system_files``: files of the system and of Python that every process reads.
- ``landlock``: access to files, TCP ports, signals (landlock(7)).
- ``seccomp``: system calls (seccomp(2)); ``syscall_numbers`` has their numbers.
"""
