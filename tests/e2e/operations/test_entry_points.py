"""Daemon that is started by another entry point than the installed program's."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.support.daemons import Daemon

_CODE = "import sys; from fastn_p2p.cli import main; sys.exit(main())"


def test_a_daemon_that_was_started_by_the_function_of_the_command_line(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.command = (sys.executable, "-c", _CODE, "daemon")
    daemon.start()
    daemon.identity("alice")
    with daemon.client() as client:
        assert client.call("alice", "alice", "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
    assert daemon.stop() == 0
