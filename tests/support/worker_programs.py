"""Workers and programs as processes: ``python -m tests.support.worker_programs OPTIONS``, and what starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fastn_p2p_client import Server, Session, listen
from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.protocol import CallContext, Peer
from fastn_p2p_client.workers import WorkerServer, serve_workers
from tests.support.daemons import DEADLINE, eventually, is_alive
from tests.support.processes import send_signal

__all__ = ["PROTOCOL", "WorkerProcess"]

PROTOCOL = "Work"
_CHECKOUT = Path(__file__).parents[2]


async def _handle(request: dict[str, Any], peer: Peer, call: CallContext) -> dict[str, Any]:
    """Do what the request says, and note in the file ``note`` what was begun and how it has ended."""
    _note(request, "begun")
    try:
        if "fail" in request:
            raise ApplicationError(request["fail"], "on purpose", {"pid": os.getpid()})
        if "block" in request:  # the event loop too
            time.sleep(request["block"])  # noqa: ASYNC251
        if "until" in request:
            await _exists(Path(request["until"]))
        data = request.get("data", b"")[::-1] + b"x" * request.get("more", 0)
    except BaseException as error:
        _note(request, f"ended-with-{type(error).__name__}")
        raise
    _note(request, "ended")
    return {"pid": os.getpid(), "peer": peer.key.id52, "left": call.remaining(), "command": call.command, "data": data}


async def _serve_session(session: Session, request: dict[str, Any]) -> None:
    """Send who serves whom as one line of JSON, then everything back."""
    if "fail" in request:
        raise ApplicationError(request["fail"], "on purpose")
    await session.write(json.dumps({"pid": os.getpid(), "peer": session.peer.key.id52}).encode() + b"\n")
    async for chunk in session:
        await session.write(chunk)


async def _exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def _note(request: dict[str, Any], what: str) -> None:
    if "note" in request:
        with Path(request["note"]).open("a") as file:
            file.write(f"{what} {os.getpid()}\n")


class WorkerProcess:
    """A worker of an identity's Work that runs until ``end``; with ``home``, a program of that daemon."""

    def __init__(self, url: str, identity: str, directory: Path, **options: Any) -> None:
        self._ready = directory / f"ready-{os.urandom(4).hex()}"
        arguments = json.dumps({"url": url, "identity": identity, "ready": str(self._ready), **options})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.worker_programs", arguments], cwd=_CHECKOUT, stderr=subprocess.PIPE
        )
        self.pid = self._process.pid

    def ready(self) -> WorkerProcess:
        """Wait until bridges can find it."""
        eventually(lambda: self._ready.exists() or self._process.poll() is not None, "the worker is ready", DEADLINE)
        assert self._process.poll() is None, self.errors()
        return self

    def send(self, number: signal.Signals) -> None:
        send_signal(self.pid, number)

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait(DEADLINE)

    def errors(self) -> str:
        """Return what it has written to standard error. It has ended."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()

    def end(self) -> None:
        if is_alive(self.pid) and self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE)
        assert self._process.stderr is not None
        self._process.stderr.close()


async def _main(options: dict[str, Any]) -> None:
    ready = Path(options.pop("ready"))
    handlers = {"": _handle, "other": _handle}
    streams = _serve_session if options.pop("sessions", True) else None
    url, identity = options.pop("url"), options.pop("identity")
    worker: WorkerServer | Server
    if "home" in options:
        worker = listen(identity, options.pop("home"))
        worker.handle_requests(PROTOCOL, _handle, access="everyone", **options)
    else:
        worker = serve_workers(url, identity, PROTOCOL, handlers, streams=streams, **options)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.close)

    async def report() -> None:
        await worker.ready.wait()
        ready.touch()

    reporting = asyncio.create_task(report())
    await worker.serve()
    await reporting


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
