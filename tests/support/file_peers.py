"""``FileTransfer`` and its callers inside one event loop: no daemon, the same messages and sessions."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from fastn_p2p.protocols.files.client import FilesClient
from fastn_p2p.protocols.files.config import FileTransferConfig
from fastn_p2p.protocols.files.events import Discovered, Event, FileProgress
from fastn_p2p.protocols.files.protocol import FileTransfer
from fastn_p2p_client.errors import ApplicationError, ConnectionLost, P2PError, PeerOffline
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import RESET_FAILED
from fastn_p2p_client.protocol import BindingContext, Peer
from fastn_p2p_client.serving.handlers import RequestHandler, StreamHandler
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair

__all__ = [
    "ALICE",
    "BOB",
    "CAROL",
    "Contents",
    "FaultyPeerClient",
    "InProcessClient",
    "Snapshot",
    "kinds",
    "make_files",
    "snapshot",
    "until",
]

ALICE = PublicKey("ha4e7nbk17opbvaircmjpeiteb56e2dv3ma146vjei403d0fdte0")
"""Shares files and has an inbox."""
BOB = PublicKey("g4sne3l8fkblull3ahjc6j3upj5or2khmjn3f8ituo7ln3u9mea0")
"""Asks, under the petname ``bob``."""
CAROL = PublicKey("tl4ihhh8q71cdqn90cs90mclc4kli9pqbhhvidhmo5319b476v8g")

T = TypeVar("T")

Contents: TypeAlias = Mapping[str, bytes | int]
"""Path → content, or so many bytes; a path that ends with ``/`` is an empty directory."""
Snapshot: TypeAlias = dict[str, tuple[bytes, int, int]]
"""Path → content, permission bits, time of change in nanoseconds."""


class InProcessClient:
    """Client of alice's ``FileTransfer`` in the same event loop; it takes the place of a ``Client``.

    Attributes:
        cuts: bytes after which a session breaks, one for each of the next sessions that are opened; 0 for none.
        errors: errors that the next attempts to open a session end with.
        opened: how many sessions there were.
    """

    def __init__(self, workspace: Path, peer: Peer | None = None, **config: Any) -> None:
        self.workspace = workspace
        self.config = config
        self.peer = peer or Peer(BOB, "bob")
        self.cuts: list[int] = []
        self.errors: list[P2PError] = []
        self.opened = 0
        self._rejections: dict[Session, ApplicationError] = {}
        """Error of a handler that rejected a session, until the opener receives it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_up = True
        self.protocol = self._started()

    def _started(self) -> FileTransfer:
        settings = msgspec.convert(self.config, FileTransferConfig)
        return FileTransfer(BindingContext("alice", ALICE, "FileTransfer", "default", self.workspace, settings))

    async def restart(self) -> None:
        """The process that serves is killed, and another one started."""
        self._is_up = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.protocol = self._started()
        await self.protocol.on_check()
        await self.protocol.on_activate()
        self._is_up = True

    def files(self) -> FilesClient:
        return FilesClient(self, None, "alice")  # type: ignore[arg-type]

    def as_peer(self, key: PublicKey, name: str | None = None) -> InProcessClient:
        """Return a client of the same daemon for another peer."""
        other = InProcessClient(self.workspace, Peer(key, name), **self.config)
        other.protocol = self.protocol
        return other

    async def call(
        self,
        _identity: str | None,
        _peer: str,
        _protocol: str,
        _instance: str,
        request: Any,
        *,
        returns: Any,
        timeout: float,
    ) -> Any:
        if not self._is_up:
            raise PeerOffline(peer="alice")
        process = self.protocol
        handler = RequestHandler.of_protocol(process)
        assert handler is not None
        decoded = handler.decode(msgspec.msgpack.encode(request))
        reply = await handler.call(decoded, self.peer)
        if self.protocol is not process:
            raise ConnectionLost(what="the process")
        return msgspec.msgpack.decode(msgspec.msgpack.encode(reply), type=returns)

    async def connect(self, _identity: str | None, _peer: str, _protocol: str, _instance: str, initial: Any) -> Session:
        if self.errors:
            raise self.errors.pop(0)
        if not self._is_up:
            raise PeerOffline(peer="alice")
        handler = StreamHandler.of_protocol(self.protocol)
        assert handler is not None
        assert handler.decode is not None
        ours, theirs = session_pair("FileTransfer", opener=self.peer, server=Peer(ALICE, None))
        self.opened += 1
        cut = self.cuts.pop(0) if self.cuts else 0
        if cut:
            _cut_after(ours, theirs, cut, self._tasks)
        task = asyncio.create_task(self._serve(handler, ours, theirs, handler.decode(msgspec.msgpack.encode(initial))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await ours.opened
        except ConnectionLost:
            if ours in self._rejections:
                raise self._rejections.pop(ours) from None
            raise
        return ours

    async def _serve(self, handler: StreamHandler, ours: Session, theirs: Session, order: Any) -> None:
        try:
            await handler.serve(theirs, order)
            await theirs.close()
        except ApplicationError as error:
            if theirs.opened.done():
                theirs.abort(RESET_FAILED)
                raise
            self._rejections[ours] = error
            ours.fail(ConnectionLost(what="what the handler has refused"))
        except P2PError:
            theirs.abort(RESET_FAILED)
        except asyncio.CancelledError:
            ours.fail(ConnectionLost(what="the process"))
            theirs.fail(ConnectionLost(what="the process"))


class FaultyPeerClient(InProcessClient):
    """Client of a faulty peer: the test's function gets each session and its opening request."""

    def __init__(self, serve: Callable[[Session, Any], Awaitable[None]], workspace: Path) -> None:
        super().__init__(workspace, root=str(workspace))
        self._behaviour = serve

    async def _serve(self, handler: StreamHandler, ours: Session, theirs: Session, order: Any) -> None:
        try:
            await self._behaviour(theirs, order)
            await theirs.close()
        except P2PError:
            theirs.abort(RESET_FAILED)


def _cut_after(ours: Session, theirs: Session, size: int, tasks: set[asyncio.Task[None]]) -> None:
    """Lets that many bytes through in both directions together, then none, and then breaks the session."""
    left = size

    async def break_soon() -> None:
        turns = 0
        while turns < 50:  # what has got through is read by then
            await asyncio.sleep(0)
            turns = 0 if ours._chunks or theirs._chunks else turns + 1
        for each in (ours, theirs):
            each.fail(ConnectionLost(what="the connection"))

    def cutting(send: Callable[[bytes, Any], object]) -> Callable[[bytes, Any], None]:
        def sending(header: bytes, payload: Any) -> None:
            nonlocal left
            through = payload[: max(left, 0)]
            if left > 0 and len(payload) >= left:
                task = asyncio.create_task(break_soon())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if left > 0 and (through or not payload):
                send(header, through)
            left -= len(payload)

        return sending

    for session in (ours, theirs):
        session._send_message = cutting(session._send_message)


def make_files(root: Path, files: Contents) -> None:
    """Makes them, each with a time of its own."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(content) if isinstance(content, int) else content)
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + 1_000_000_007 * number))


def snapshot(root: Path) -> Snapshot:
    """Return everything below ``root``, also partial files. A directory counts as a file without content."""
    found: Snapshot = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(root))] = content, stat.S_IMODE(status.st_mode), status.st_mtime_ns
    return found


async def until(condition: Callable[[], object]) -> None:
    """Lets others go on until it is true."""
    while not condition():  # noqa: ASYNC110 - whatever it looks at has no event
        await asyncio.sleep(0)


def kinds(events: list[Event]) -> list[str]:
    """Return the names of the events, without those about progress."""
    return [type(event).__name__ for event in events if not isinstance(event, FileProgress | Discovered)]
