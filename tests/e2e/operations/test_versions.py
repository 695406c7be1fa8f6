"""A program and a daemon of different versions: told so, with both versions."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

import fastn_p2p_client.errors as e
from fastn_p2p.cli import main
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_actors.network.wire.messages import WIRE_VERSION
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client import Client, sync
from fastn_p2p_client.home import Home, lock_exclusively
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel, decode_answer
from fastn_p2p_client.limits import PROTOCOL_VERSION
from tests.support.daemons import Daemon
from tests.support.requests import STRANGER, assert_same_error
from tests.support.two_daemons import TwoDaemons

_reply = msgspec.msgpack.Decoder(m.ControlReply)


async def test_a_program_of_another_version(daemons: TwoDaemons) -> None:
    """Told so, with both versions, and nothing else is listened to before a hello that fits."""
    link = RequestChannel(daemons.one.home.control_socket, "gateway")
    link.open()
    early, mismatch, late = [
        decode_answer(_reply, (await link.request(message, timeout=60)).header)
        for message in (m.ListIdentities(), m.Hello(PROTOCOL_VERSION + 1), m.ListIdentities())
    ]
    link.close()
    assert_same_error(mismatch.error(), e.VersionMismatch(ours=PROTOCOL_VERSION + 1, theirs=PROTOCOL_VERSION))
    assert "Upgrade the older" in str(mismatch.error())
    for refusal in (early, late):
        assert_same_error(refusal.error(), e.BadMessage(reason="say Hello first"))


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "welcomes"])
async def test_a_daemon_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refuses: bool
) -> None:
    """A stub that only knows version 7, and says so or uses it: all three name both versions."""
    home = Home(tmp_path)
    expected = e.VersionMismatch(ours=PROTOCOL_VERSION, theirs=7)
    monkeypatch.setenv("FASTN_HOME", str(tmp_path))

    with home.lock.open("w") as lock:
        lock_exclusively(lock.fileno())
        lock.write(f"{os.getpid()}\n")
        lock.flush()

        def refuse(sender: Sender, correlation: bytes, _header: bytes, _payload: bytes) -> None:
            answer = m.ErrorReply.of(expected) if refuses else m.Welcome(7, "7.0", str(tmp_path / "none"), 1, 1)
            mailbox.send(sender, correlation, m.encode(answer))

        home.control_socket.parent.mkdir(parents=True, exist_ok=True)
        mailbox = Mailbox(home.control_socket, refuse)
        mailbox.open()
        try:
            async with Client(home) as client:
                with pytest.raises(e.VersionMismatch) as caught:
                    await client.call(None, STRANGER, "Echo")
            assert_same_error(caught.value, expected)
            assert await asyncio.to_thread(main, ["list-identities"]) == ExitCode.DAEMON
            with sync.Client(home) as blocking, pytest.raises(e.VersionMismatch) as caught:
                await asyncio.to_thread(blocking.control, m.GetStatus())
            assert_same_error(caught.value, expected)
        finally:
            mailbox.close()
    assert capsys.readouterr() == ("", f"fastn-p2p: {expected}\n")


@pytest.mark.parametrize(
    ("oldest", "served"), [(1, True), (2, False)], ids=["speaks both", "speaks the later one alone"]
)
def test_a_peer_of_a_later_wire_version(daemons: TwoDaemons, tmp_path: Path, oldest: int, served: bool) -> None:
    """Either daemon calls the other one, or both are told both versions."""
    (tmp_path / "sitecustomize.py").write_text(
        "import fastn_p2p_actors.network.wire.messages as wire\n"
        f"wire.OLDEST_WIRE_VERSION, wire.WIRE_VERSION = {oldest}, {WIRE_VERSION + 1}\n"
    )
    hosts = Path(daemons.one.env["FASTN_HOST_DIRECTORY"])
    later = Daemon(tmp_path / "home", hosts, PYTHONPATH=str(tmp_path))
    try:
        carol = later.start().identity("carol")
        for daemon, name, peer in ((daemons.one, "alice", carol), (later, "carol", daemons.alice)):
            done = daemon.cli("call", peer, "Echo", "--as", name, "--timeout", "50", input='{"message": "hi"}')
            if served:
                assert done.stdout == '{"echoed":"Echo: hi"}\n', done.stderr
            else:
                assert done.returncode == ExitCode.PEER
                assert f"one daemon has wire version {WIRE_VERSION}, the other {WIRE_VERSION + 1}" in done.stderr
    finally:
        later.clean_up()
