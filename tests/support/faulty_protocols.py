"""A protocol that misbehaves as its config says, and a daemon that does not wait long for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_client import Session
from fastn_p2p_client.protocol import Permissions, Protocol, request, stream
from fastn_p2p_supervisor.actor_specs import DaemonConfig
from fastn_p2p_supervisor.restart_policy import Timeouts
from tests.support.daemons import Daemon

__all__ = ["MEMORY", "FastDaemon", "FaultyProtocol"]

MEMORY = 200
"""MiB that an identity of a ``FastDaemon`` may have."""

_DAEMONISE = """
import os, sys, time
if pid := os.fork():
    with open(sys.argv[1], "a") as note:
        note.write(f"{pid}\\n")
    os._exit(0)
os.setsid()
time.sleep(3600)
"""

Fault = Literal["nothing", "wait", "stubborn", "sleep", "spin", "raise", "exit", "exit really", "eat", "hoard", "fork"]


class FaultyProtocol(Protocol):
    """Does in ``place`` what ``way`` says."""

    public = True

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        place: str = ""
        way: Fault = "nothing"

    config: Config
    hoard: ClassVar[list[bytearray]] = []

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        return Permissions(programs=[sys.executable])

    async def _come_to(self, place: str) -> None:
        if self.config.place == place:
            await self._misbehave(self.config.way)

    async def on_check(self) -> None:
        await self._come_to("on_check")

    async def on_create(self) -> None:
        await self._come_to("on_create")

    async def on_activate(self) -> None:
        await self._come_to("on_activate")
        if self.config.place == "a task":
            self.task = asyncio.create_task(self._later())

    async def on_deactivate(self) -> None:
        await self._come_to("on_deactivate")

    async def on_reload(self) -> None:
        await self._come_to("on_reload")

    async def on_delete(self) -> None:
        await self._come_to("on_delete")

    @request
    async def handle(self, request: Fault) -> int:
        await self._misbehave(request)
        return os.getpid()

    @stream
    async def converse(self, session: Session, way: Fault) -> None:
        session.accept()
        await self._misbehave(way)

    async def _later(self) -> None:
        """Once the binding is there: a process that ends before that takes it along."""
        while True:
            await asyncio.sleep(0.01)
            if (self.context.workspace / "config.json").exists():
                break
        await self._misbehave(self.config.way)

    async def _misbehave(self, way: Fault) -> None:
        if way == "wait":
            await asyncio.Event().wait()
        elif way == "stubborn":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue
        elif way == "sleep":
            time.sleep(3600)  # noqa: ASYNC251 - that is the point
        elif way == "spin":
            while True:
                pass
        elif way == "raise":
            raise RuntimeError("as ordered")
        elif way == "exit":
            sys.exit(5)
        elif way == "exit really":
            os._exit(5)
        elif way in ("eat", "hoard"):
            eaten = self.hoard if way == "hoard" else []
            while True:
                eaten.append(bytearray(8 * 1024 * 1024))
        elif way == "fork":
            self._fork()

    def _fork(self) -> None:
        """Three kinds of children: one in a session of its own, one that is another program, and one that comes back
        as if it were the identity."""
        note = self.context.workspace / "children"
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                if number:
                    os.setsid()
                    time.sleep(3600)
                return
            self._note(note, pid)
        # The program in between ends as soon as it has noted the other one, which is nobody's then.
        subprocess.run([sys.executable, "-c", _DAEMONISE, note], check=False)

    @staticmethod
    def _note(note: Path, pid: int) -> None:
        with note.open("a") as file:
            file.write(f"{pid}\n")


class FastDaemon(Daemon):
    """Identities give a sign of life every half second, and are given up after three seconds without one."""

    command = (sys.executable, "-m", __name__)


def main() -> None:
    """Runs the daemon of ``$FASTN_HOME``, with a plan of its own."""
    from fastn_p2p_client.home import Home
    from fastn_p2p_supervisor.daemon import run

    plan = DaemonConfig(
        identity_heartbeat=0.5,
        identity_memory=MEMORY * 1024 * 1024,
        timeouts=Timeouts(ready=8, silence=3),
    )
    sys.exit(run(Home.find(None), NetworkSection(mode="local"), plan))


if __name__ == "__main__":
    main()
