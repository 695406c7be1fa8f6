"""Order to a new child of the fork server."""

from __future__ import annotations

import os
import socket
from typing import Any

import msgspec
import pytest

from fastn_p2p_supervisor import process_order
from fastn_p2p_supervisor.process_order import ProcessOrder, carry_out

_got: list[Any] = []


def _target(argument: bytes, channel: socket.socket, *further: int) -> None:
    _got.extend((argument, channel, further))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_the_function_gets_its_arguments_and_no_descriptor_of_the_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_forkserver_address", "_forkserver_alive_fd"):
        monkeypatch.setattr(process_order._server, name, "used")
    monkeypatch.setattr(process_order._tracker, "_fd", None)
    request, pipe = os.pipe()
    os.write(pipe, msgspec.msgpack.encode(ProcessOrder(__name__, "_target", b"spec")))
    os.close(pipe)
    server, tracker, unused, kept = (os.open(os.devnull, os.O_RDONLY) for _ in range(4))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        assert carry_out(request, [server, tracker, theirs.detach(), kept], [unused], {}) == 0
        argument, channel, further = _got
        assert (argument, further) == (b"spec", (kept,))
        channel.send(b"hello")
        assert ours.recv(10) == b"hello"
        channel.close()
    os.close(kept)
    assert not any(map(_is_open, (request, server, tracker, unused)))
    assert process_order._server._forkserver_address is None
    assert process_order._server._forkserver_alive_fd is None
