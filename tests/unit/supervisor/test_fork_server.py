"""Processes of the fork server."""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Any, cast

from fastn_p2p_supervisor.fork_server import ForkedProcess, open_pidfd


def is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def test_a_process_that_has_ended_before_it_gets_a_descriptor_counts_as_ended() -> None:
    """A one-shot worker can be faster than the supervisor on a busy machine."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    gone, running = open_pidfd(pid), open_pidfd(os.getpid())
    try:
        assert is_readable(gone)
        assert not is_readable(running)
        with socket.socket() as channel:
            ForkedProcess(pid, gone, channel, cast(Any, None), running).signal(signal.SIGKILL)  # does not raise
    finally:
        os.close(gone)
        os.close(running)
