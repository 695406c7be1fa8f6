"""A protocol that keeps state learns of its home: by which message, and when its hook runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fastn_p2p_client.ipc.messages import HomeChanged, encode
from fastn_p2p_client.protocol import BindingContext, Protocol, request
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.dispatcher import Dispatcher
from fastn_p2p_client.serving.protocol_lifecycle import ProtocolLifecycle
from tests.support.signer import Signer

ALICE = Signer().key


class Watching(Protocol):
    homes: ClassVar[list[str]] = []

    @request
    async def answer(self, request: str) -> str:
        return request

    async def on_home_changed(self) -> None:
        self.homes.append(self.home_elsewhere)
        if self.home_elsewhere == "broken":
            raise RuntimeError


async def test_the_hook_runs_when_standby_begins_and_ends_and_may_fail(tmp_path: Path) -> None:
    Watching.homes.clear()
    life = ProtocolLifecycle(BindingContext("alice", ALICE, "Watching", "default", tmp_path, None), lambda: Watching)
    await life.set_home("laptop")  # not active yet: nothing happens
    await life.start(b"{}")
    for daemon in ("", "laptop", "phone", "", "broken", ""):
        await life.set_home(daemon)
        assert life.code is not None
        assert life.code.home_elsewhere == daemon
    await life.stop()
    assert Watching.homes == ["laptop", "", "broken", ""]


async def test_a_message_reaches_the_binding_that_it_names() -> None:
    told: list[str] = []
    dispatcher = Dispatcher(lambda *_: None)
    binding = ServedBinding("alice", ALICE, "Mail", "default", {})
    binding.on_home = told.append
    dispatcher.add(binding)
    for protocol in ("Chat", "Mail"):
        dispatcher.on_message(b"", encode(HomeChanged("alice", protocol, "default", "laptop")), b"")
    assert told == ["laptop"]
