"""Reason of a deactivation, which ``on_deactivate`` may read."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Protocol, request
from fastn_p2p_client.serving.protocol_lifecycle import ProtocolLifecycle
from tests.support.signer import Signer


class Diary(Protocol):
    reasons: ClassVar[list[str]] = []

    @request
    async def answer(self, request: str) -> str:
        return request

    async def on_deactivate(self) -> None:
        self.reasons.append(self.deactivation_reason)


def context(workspace: Path, key: PublicKey) -> BindingContext:
    return BindingContext("alice", key, "Diary", "default", workspace, None)


@pytest.mark.parametrize(("stop", "reason"), [(("idle",), "idle"), ((), "stopped")])
async def test_hook_knows_why(tmp_path: Path, stop: tuple[str, ...], reason: str) -> None:
    Diary.reasons.clear()
    life = ProtocolLifecycle(context(tmp_path, Signer().key), lambda: Diary)
    await life.start(b"{}")
    await life.stop(*stop)
    assert Diary.reasons == [reason]


def test_protocol_in_a_program_may_ask_to_stay_awake(tmp_path: Path) -> None:
    """Nothing happens: the program decides how long it runs."""
    context(tmp_path, Signer().key).stay_awake(True)
