"""Protocols that tests install: they note what happens to them, and fail where their config says so."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from fastn_p2p_client.protocol import Protocol, request

ENTRY_POINTS = f"""[fastn_p2p.protocols]
Diary = {__name__}:Diary
NoProtocol = {__name__}:NotAProtocol
NoModule = {__name__}_missing:Nothing
TwoHandlers = {__name__}:TwoHandlers
"""


def install(folder: Path) -> None:
    """Makes ``folder``, once it is on ``sys.path``, look like a place where these are installed."""
    metadata = folder / "troubled-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: troubled\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)


class NotAProtocol:
    pass


class Diary(Protocol):
    """Answers with what it has been through. A request names what is to happen."""

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        fail_in: str = ""
        """The hook that raises."""
        exit_in: str = ""
        """The hook that ends the process, or tries to."""
        word: str = ""

    config: Config

    def note(self, what: str) -> None:
        if self.config.exit_in == what:
            raise SystemExit(3)
        if self.config.exit_in == f"{what}, really":
            os._exit(3)
        if self.config.fail_in == what:
            raise ValueError(f"{what} fails as configured")
        with (self.context.workspace.parent / f"{self.context.instance}.diary").open("a") as diary:
            diary.write(f"{what} {self.config.word}".strip() + "\n")

    async def on_check(self) -> None:
        if self.config.fail_in == "check":
            raise ValueError("check fails as configured")
        if self.config.exit_in == "check, really":
            os._exit(3)

    async def on_create(self) -> None:
        assert self.context.workspace.is_dir()
        self.note("create")

    async def on_activate(self) -> None:
        self.note("activate")

    async def on_reload(self) -> None:
        self.note("reload")

    async def on_deactivate(self) -> None:
        self.note("deactivate")

    async def on_delete(self) -> None:
        self.note("delete")

    @request
    async def answer(self, request: str) -> Any:
        if request == "wait":
            await asyncio.Event().wait()
        if request.startswith("sleep "):
            await asyncio.sleep(float(request.removeprefix("sleep ")))
        if request == "exit":
            raise SystemExit(3)
        return [request, self.config.word]


class TwoHandlers(Protocol):
    @request
    async def one(self, request: int) -> None: ...

    @request
    async def two(self, request: int) -> None: ...
