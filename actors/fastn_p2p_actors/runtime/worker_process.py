"""Start of a one-shot worker that is a child of the fork server."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import traceback
from typing import Final, Protocol, cast

import msgspec

from fastn_p2p_client.plain_text import plain_lines

from . import process_setup
from .separate_users import ProcessAccount, become_user

EXIT_FAILED: Final = 1


class Worker(Protocol):
    """Module of a worker."""

    def answer(self, connection: socket.socket) -> None:
        """Read the task from the connection until its end, and write the reply."""


class WorkerOrder(msgspec.Struct, frozen=True):
    """Module of a worker, and the user that it takes; None to stay the user of the supervisor."""

    module: str
    account: ProcessAccount | None = None


def main(order: bytes, channel: socket.socket, connection: int, output: int) -> None:
    """Run a worker from its start to its exit. Never returns.

    Args:
        order: the ``WorkerOrder`` in msgpack.
        channel: the child's end of a control channel, which is not used.
        connection: stream socket from which the worker reads its task until the end, and to which it writes its reply.
        output: standard output and standard error of the code that it runs.
    """
    code = EXIT_FAILED
    try:
        wanted = msgspec.msgpack.decode(order, type=WorkerOrder)
        if wanted.account is not None:
            become_user(wanted.account)
        if process_setup.initialize_child(channel.fileno()):
            os.setsid()
            _redirect(output)
            process_setup.set_title("worker")
            os.set_inheritable(connection, False)
            with socket.socket(fileno=connection) as opened:
                cast(Worker, importlib.import_module(wanted.module)).answer(opened)
            code = 0
    except BaseException:
        sys.stderr.write(plain_lines(traceback.format_exc()))
        sys.stderr.flush()
    finally:
        os._exit(code)  # threads and exit handlers of the protocol must not delay the end


def _redirect(output: int) -> None:
    """Keep the terminal of the daemon away from protocol code."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
