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
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client import Client, sync
from fastn_p2p_client.home import Home, lock_exclusively
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel, decode_answer
from fastn_p2p_client.limits import PROTOCOL_VERSION
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


async def test_a_daemon_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stub that only knows version 7: all three name both versions."""
    home = Home(tmp_path)
    expected = e.VersionMismatch(ours=PROTOCOL_VERSION, theirs=7)
    monkeypatch.setenv("FASTN_HOME", str(tmp_path))

    with home.lock.open("w") as lock:
        lock_exclusively(lock.fileno())
        lock.write(f"{os.getpid()}\n")
        lock.flush()

        def refuse(sender: Sender, correlation: bytes, _header: bytes, _payload: bytes) -> None:
            mailbox.send(sender, correlation, m.encode(m.ErrorReply.of(expected)))

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
