"""Calls and file transfers that go on while a test disturbs the network, with a record of each."""

from __future__ import annotations

import asyncio
import filecmp
import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fastn_p2p.protocols.files.client import FilesClient
from fastn_p2p.protocols.files.events import Event, FileProgress
from fastn_p2p_client import Client
from fastn_p2p_client.errors import P2PError, PeerOffline
from fastn_p2p_client.ipc.messages import RemoveProtocol
from tests.support.daemons import DEADLINE, Daemon
from tests.support.two_daemons import add_binding

__all__ = ["CallRecord", "Load", "call_echo", "running_load"]

_EVERY = 0.1
"""Seconds between the beginnings of two calls."""
_LAST_CALLS = 1.5 * DEADLINE
"""Seconds that calls and the transfer in flight have after the load's end."""


@dataclass(frozen=True)
class CallRecord:
    """A call: when it began and ended (``time.monotonic``), and its error, empty for a right reply."""

    number: int
    began: float
    ended: float
    error: str

    @property
    def seconds(self) -> float:
        """Time that the call took."""
        return self.ended - self.began


@dataclass
class Load:
    """Calls and transfers so far.

    Attributes:
        calls: in order of their ends.
        transfers: number of files that arrived bit-identical.
        transfer_errors: what went wrong with others.
        file_size: bytes of the file.
    """

    began: float = field(default_factory=time.monotonic)
    calls: list[CallRecord] = field(default_factory=list)
    transfers: int = 0
    transfer_errors: list[str] = field(default_factory=list)
    file_size: int = 0
    _offset: int = 0
    """Bytes of the file that have arrived, 0 between two transfers."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def answered(self) -> list[CallRecord]:
        """Calls that got their reply, in order of their ends."""
        return [call for call in self.calls if not call.error]

    @property
    def failed(self) -> list[CallRecord]:
        """Calls that ended with an error."""
        return [call for call in self.calls if call.error]

    @property
    def longest_gap(self) -> float:
        """Longest time in seconds during which no reply arrived."""
        ends = [self.began, *(call.ended for call in self.answered)]
        return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0)

    def percentile(self, fraction: float) -> float:
        """Return the seconds within which this fraction of the answered calls got their reply."""
        seconds = sorted(call.seconds for call in self.answered)
        return seconds[min(len(seconds) - 1, int(fraction * len(seconds)))]

    def wait_failure(self, timeout: float = DEADLINE) -> None:
        """Wait until a call that begins from now on has failed."""
        now = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(lambda: any(call.began >= now for call in self.failed), timeout), (
                f"no call failed: {self}"
            )

    def wait_call(self, *, after: float | None = None, timeout: float = DEADLINE) -> float:
        """Wait until a call that began after that time (default: now) is answered; the seconds from then on."""
        since = time.monotonic() if after is None else after
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(call.began >= since and not call.error for call in self.calls), timeout
            ), f"no call answered within {timeout:g} s; {self}"
            return min(call.ended for call in self.answered if call.began >= since) - since

    def wait_transfer(self, timeout: float = DEADLINE) -> None:
        """Wait until a transfer is under way: some of the file has arrived, and most has not."""
        with self._changed:
            assert self._changed.wait_for(lambda: 0 < self._offset <= self.file_size // 4, timeout), (
                f"no transfer was seen under way within {timeout:g} s; {self}"
            )

    def on_transfer_event(self, event: Event) -> None:
        """Note how far the transfer is."""
        if isinstance(event, FileProgress):
            with self._changed:
                self._offset = event.offset
                self._changed.notify_all()

    def on_transfer_end(self, error: str) -> None:
        """Count a transfer: empty if the file arrived as it was."""
        with self._changed:
            self._offset = 0
            if error:
                self.transfer_errors.append(error)
            else:
                self.transfers += 1

    def check(self) -> None:
        """Assert that every call was answered and every file arrived as it was."""
        assert not self.failed, str(self)
        assert not self.transfer_errors, str(self)
        assert self.calls, "no call was made"

    def record(self, call: CallRecord) -> None:
        """Add a call."""
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()

    def __str__(self) -> str:
        errors = sorted({f"{call.error} at {call.began - self.began:.1f} s" for call in self.failed})[:10]
        return (
            f"{len(self.answered)} of {len(self.calls)} calls answered, longest gap {self.longest_gap:.2f} s, "
            f"errors {errors}; {self.transfers} files transferred, errors {self.transfer_errors}"
        )


@contextmanager
def running_load(
    caller: Daemon,
    callee: Daemon,
    peer: str,
    *,
    identity: str = "alice",
    callee_identity: str = "bob",
    every: float = _EVERY,
    timeout: float = DEADLINE,
    retry: bool = True,
    file_size: int = 4 << 20,
) -> Iterator[Load]:
    """Call Echo at ``peer`` every 100 ms, and get a file from it again and again, until the block ends.

    At the end the calls and the transfer in flight are finished; then see the ``Load``: ``load.check()``. Calls wait
    for the first answered one: the path to the peer is there when the block begins.

    Args:
        peer: a petname or an ID52 that ``identity`` can reach.
        callee_identity: name of the peer at its own daemon; it gets an instance ``load`` of FileTransfer.
        every: seconds between two calls.
        timeout, retry: of each call.
        file_size: bytes; 0: no file is transferred.
    """
    shared, received = (Path(tempfile.mkdtemp(prefix="load-", dir=daemon.home.path)) for daemon in (callee, caller))
    (shared / "file").write_bytes(Random(file_size).randbytes(file_size))
    add_binding(callee, callee_identity, "FileTransfer", "load", "everyone", root=str(shared))
    load = Load(file_size=file_size)
    stopping = threading.Event()
    failures: list[BaseException] = []

    async def run() -> None:
        async with Client(caller.home, program="load") as client:
            transfers = None
            if file_size:
                transfers = asyncio.create_task(_transfer(client, identity, peer, shared, received, load, stopping))
            calls: list[asyncio.Task[None]] = []
            try:
                while not stopping.is_set():
                    calls.append(
                        asyncio.create_task(call_echo(client, identity, peer, len(calls), timeout, retry, load))
                    )
                    await asyncio.sleep(every)
                async with asyncio.timeout(_LAST_CALLS):
                    await asyncio.gather(*calls, *([transfers] if transfers else []))
            finally:
                for task in (*calls, *([transfers] if transfers else [])):
                    task.cancel()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=main, name="load")
    thread.start()
    try:
        load.wait_call(after=load.began)
        yield load
    finally:
        stopping.set()
        thread.join()
        with suppress(P2PError), callee.client() as client:
            client.control(RemoveProtocol(callee_identity, "FileTransfer", "load"))
        shutil.rmtree(shared)
        shutil.rmtree(received)
    for failure in failures:
        raise failure


async def call_echo(
    client: Client, identity: str, peer: str, number: int, timeout: float, retry: bool, load: Load
) -> None:
    """Call Echo once, and record the call in ``load``. An error is recorded, too."""
    began = time.monotonic()
    request, error = {"message": f"call {number}"}, ""
    try:
        reply = await client.call(identity, peer, "Echo", request=request, timeout=timeout, retry=retry)
        if reply != {"echoed": f"Echo: call {number}"}:
            error = f"another reply: {reply!r}"
    except P2PError as problem:
        error = f"{problem.code}: {problem}"
    load.record(CallRecord(number, began, time.monotonic(), error))


async def _transfer(
    client: Client, identity: str, peer: str, shared: Path, received: Path, load: Load, stopping: threading.Event
) -> None:
    """Get the file until the load ends, at least once, and compare it."""
    files = FilesClient(client, identity, peer, "load")
    while not (stopping.is_set() and (load.transfers or load.transfer_errors)):
        try:
            await files.get(["file"], received, report=load.on_transfer_event)
        except PeerOffline:  # a daemon that stops takes its identities offline: a new transfer finds none
            await asyncio.sleep(_EVERY)
            continue
        except P2PError as error:
            load.on_transfer_end(f"{error.code}: {error}")
            await asyncio.sleep(_EVERY)
            continue
        copy = received / "file"
        is_same = copy.exists() and filecmp.cmp(copy, shared / "file", shallow=False)
        load.on_transfer_end("" if is_same else "the file is not the same")
        copy.unlink(missing_ok=True)
