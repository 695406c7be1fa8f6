"""Try a build on two real machines over ssh: ``python3 -m deploy.two_hosts ALICE BOB``. See deploy/README.md.

Layout:

- ``__main__``: the command: installs, runs each part, prints the report, cleans up.
- ``remote_host``: one machine: an ssh destination, a directory of its own there, a daemon.
- ``load``: runs at both machines, with the library that was installed there: serves, calls, and counts.

Nothing but the standard library is needed where the command runs.
"""
