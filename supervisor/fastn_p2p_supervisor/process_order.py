"""Order of the supervisor to a new child of the fork server, and how the child carries it out."""

from __future__ import annotations

import importlib
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Any, Final

import msgspec

_server: Any = vars(forkserver)["_forkserver"]
_tracker: Any = vars(resource_tracker)["_resource_tracker"]


class ProcessOrder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Function that a new process runs, and the first argument of it."""

    module: str
    function: str
    argument: bytes


_decoder: Final = msgspec.msgpack.Decoder(ProcessOrder)


def carry_out(request: int, passed: Sequence[int], unused: Iterable[int], _: object) -> int:
    """Run what the supervisor has ordered: ``multiprocessing.forkserver._serve_one`` for the fork server's loop.

    The multiprocessing module forgets its fork server, so that protocol code can use it afresh. The fork server exits
    when the last copy of its pipe is closed, so a child must not keep it open.

    Args:
        request: descriptor of the pipe with the ``ProcessOrder``.
        passed: copies of the fork server's pipe and of the resource tracker's, the end of the control channel, and
            further arguments of the function.
        unused: descriptors that belong to the fork server.
    """
    signal.set_wakeup_fd(-1)
    server, tracker, channel, *further = passed
    for descriptor in (server, tracker, *unused):
        os.close(descriptor)
    _server._forkserver_address = _server._forkserver_alive_fd = _tracker._fd = None
    with open(request, "rb") as pipe:
        order = _decoder.decode(pipe.read())
    getattr(importlib.import_module(order.module), order.function)(
        order.argument, socket.socket(fileno=channel), *further
    )
    return 0
