"""CURVE mailbox: only known keys connect, and the key gives the role."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
import zmq

from fastn_p2p_actors.runtime.curve.curve_connection import vault_channel
from fastn_p2p_actors.runtime.curve.mailbox import CurveMailbox, CurveSender
from fastn_p2p_actors.runtime.specs import VaultAccess
from fastn_p2p_client.errors import DaemonBusy
from fastn_p2p_client.ipc.messages import Ack, GetStatus, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from tests.support.daemons import eventually


def pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


SERVER, FRIEND, STRANGER = pair(), pair(), pair()


def access(public: str, secret: str) -> VaultAccess:
    return VaultAccess(server_public=SERVER[0], public=public, secret=secret)


def libzmq_channel(path: Path) -> RequestChannel:
    """Return a channel of libzmq without keys."""
    return RequestChannel(path, "vault", transport="pyzmq")


GOOD = access(*FRIEND)


class Server:
    """Server that answers everything and records its senders."""

    def __init__(self, path: Path, *, max_clients: int = 100, per_program: int = 50, uid: int | None = None) -> None:
        self.callers: list[CurveSender] = []
        self.own = False
        self.box = CurveMailbox(
            path,
            self._answer,
            server_secret=SERVER[1],
            roles={FRIEND[0]: "network"},
            uid=uid,
            max_clients=max_clients,
            per_program=per_program,
            is_own=lambda _: self.own,
        )
        self.box.open()

    def _answer(self, caller: CurveSender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.callers.append(caller)
        assert self.box.send(caller, correlation, encode(Ack()), payload)


async def test_role_is_the_key_and_unknown_keys_do_not_get_in(tmp_path: Path) -> None:
    server = Server(tmp_path / "v.sock")
    good = vault_channel(tmp_path / "v.sock", GOOD)
    good.open()
    for payload in (b"bytes", bytearray(b"bytearray"), memoryview(b"view")):
        assert (await good.request(GetStatus(), payload, timeout=60)).payload == bytes(payload)
    await good.drain()
    assert [caller.role for caller in server.callers] == ["network"] * 3
    strangers = [access(*STRANGER), VaultAccess(server_public=STRANGER[0], public=FRIEND[0], secret=FRIEND[1])]
    channels = [vault_channel(tmp_path / "v.sock", each) for each in strangers]
    for bad in (*channels, RequestChannel(tmp_path / "v.sock", "vault"), libzmq_channel(tmp_path / "v.sock")):
        bad.open()
        with pytest.raises(DaemonBusy):
            await bad.request(GetStatus(), timeout=0.3)
        bad.close()
    assert len(server.callers) == 3
    good.close()
    server.box.close()


async def test_another_user_is_rejected_even_with_the_right_key(tmp_path: Path) -> None:
    server = Server(tmp_path / "v.sock", uid=os.getuid() + 1)
    good = vault_channel(tmp_path / "v.sock", GOOD)
    good.open()
    with pytest.raises(DaemonBusy):
        await good.request(GetStatus(), timeout=0.3)
    assert not server.callers
    good.close()
    server.box.close()


async def test_a_program_above_its_limit_is_disconnected_and_the_daemon_s_own_connect(tmp_path: Path) -> None:
    def has_ended(stranger: socket.socket) -> bool:
        try:
            while stranger.recv(1000):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    server = Server(tmp_path / "v.sock", max_clients=20, per_program=3)
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for stranger in crowd:
        stranger.connect(str(tmp_path / "v.sock"))
        stranger.setblocking(False)
    await asyncio.to_thread(eventually, lambda: sum(map(has_ended, crowd)) >= 5, "five are disconnected")
    server.own = True
    link = vault_channel(tmp_path / "v.sock", GOOD)
    link.open()
    assert (await link.request(GetStatus(), timeout=60)).header == encode(Ack())
    for stranger in crowd:
        stranger.close()
    link.close()
    server.box.close()


async def test_socket_is_private(tmp_path: Path) -> None:
    server = Server(tmp_path / "v.sock")
    assert (tmp_path / "v.sock").stat().st_mode & 0o777 == 0o600
    server.box.close()
    assert not (tmp_path / "v.sock").exists()


async def test_too_many_connections_wait_outside_and_do_not_end_it(tmp_path: Path) -> None:
    """libzmq aborts its process when it has no descriptor left for a connection that it accepts."""
    server = Server(tmp_path / "v.sock", max_clients=20)
    crowd = []
    for _ in range(60):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.setblocking(False)
        stranger.connect_ex(str(tmp_path / "v.sock"))
        crowd.append(stranger)
        await asyncio.sleep(0)
    for stranger in crowd:
        stranger.close()
    link = vault_channel(tmp_path / "v.sock", GOOD)
    link.open()
    assert (await link.request(GetStatus(), timeout=60)).header == encode(Ack())
    link.close()
    server.box.close()
