"""Two daemons that the tests of a module share."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.errors import PermissionsNeeded
from fastn_p2p_client.ipc.messages import AddProtocol, BindingStatus
from tests.support.daemons import DEADLINE, Daemon, eventually, pause_after
from tests.support.protocols import install_protocols

__all__ = [
    "TwoDaemons",
    "add_binding",
    "add_identity",
    "binding_of",
    "counts_of",
    "final_counts",
    "handlers_at_work",
    "idle",
    "start_two_daemons",
    "until",
    "until_awaited",
    "wait_idle",
]

T = TypeVar("T")


@dataclass
class TwoDaemons:
    """alice is online at ``one``, bob at ``two``; both have what ``add_identity`` gives."""

    one: Daemon
    two: Daemon
    alice: str
    """ID52."""
    bob: str
    """ID52."""


def add_binding(
    daemon: Daemon, name: str, protocol: str, instance: str = "default", *allow: str, **config: object
) -> None:
    """Add a protocol to an identity, and grant what it needs."""
    payload = json.dumps(config).encode()
    with daemon.client() as client:
        try:
            client.control(AddProtocol(name, protocol, instance, allow), payload)
        except PermissionsNeeded as error:
            granted = tuple(error.permissions.split("\n"))
            client.control(AddProtocol(name, protocol, instance, allow, granted=granted), payload)


def add_identity(daemon: Daemon, name: str) -> str:
    """A new identity: online, with Trial, and with Echo as ``default``, ``short`` (10 characters), ``large`` and
    ``private`` (peers only)."""
    id52 = daemon.identity(name)
    add_binding(daemon, name, "Echo", "short", max_length=10)
    add_binding(daemon, name, "Echo", "large", max_length=1 << 30)
    add_binding(daemon, name, "Echo", "private", "peers")
    add_binding(daemon, name, "Trial")
    return id52


@contextmanager
def start_two_daemons(*, share_host: bool = True, echo: bool = True, listen: str = "") -> Iterator[TwoDaemons]:
    """``share_host``: they find each other by ID52, as on one machine. ``listen``: address of ``two`` for workers."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        env = install_protocols(directory / "packages")
        hosts = [directory / "hosts", directory / ("hosts" if share_host else "other-hosts")]
        one, two = (Daemon(directory / each, where, **env) for each, where in zip(("one", "two"), hosts, strict=True))
        if listen:
            two.env["FASTN_WORKER_LISTEN"] = listen
        try:
            one.launch()
            two.start()
            assert one.wait_ready(), one.report()
            make: Callable[[Daemon, str], str] = add_identity if echo else Daemon.identity
            yield TwoDaemons(one, two, make(one, "alice"), make(two, "bob"))
        finally:
            one.clean_up()
            two.clean_up()


def binding_of(daemon: Daemon, identity: str, protocol: str, instance: str = "default") -> BindingStatus:
    """Return the entry of a binding in the daemon's status."""
    for each in daemon.status().identities:
        for binding in each.bindings:
            if (each.name, binding.protocol, binding.instance) == (identity, protocol, instance):
                return binding
    raise AssertionError(f"{identity} has no {protocol} ({instance})")


def counts_of(daemon: Daemon, identity: str) -> dict[str, int]:
    """Return the counts of an identity's Trial."""
    with daemon.client() as client:
        id52 = next(each.id52 for each in daemon.status().identities if each.name == identity)
        counts: dict[str, int] = client.call(identity, id52, "Trial", request={"do": "counts"})
        return counts


def handlers_at_work(daemon: Daemon, identity: str) -> int:
    """Return the number of handlers of an identity's Trial that wait. A request in flight may not have reached one."""
    counts = counts_of(daemon, identity)
    return counts["begun"] - counts["ended"] - counts["cancelled"]


def final_counts(daemon: Daemon, identity: str) -> dict[str, int]:
    """Return the counts of an identity's Trial once none of its handlers waits."""

    def ended_counts() -> dict[str, int]:
        counts = counts_of(daemon, identity)
        return counts if counts["begun"] == counts["ended"] + counts["cancelled"] else {}

    return eventually(ended_counts, "every handler has ended")


def idle(daemon: Daemon) -> bool:
    """Return true if nothing is in flight."""
    status = daemon.status()
    return not any(binding.in_flight for identity in status.identities for binding in identity.bindings) and not any(
        connection.in_flight for connection in status.connections
    )


def wait_idle(daemon: Daemon) -> None:
    eventually(lambda: idle(daemon), "nothing is in flight")


async def until(condition: Callable[[], object], what: str, timeout: float = DEADLINE) -> None:
    """``eventually`` while the event loop goes on."""
    await asyncio.to_thread(eventually, condition, what, timeout)


async def until_awaited(condition: Callable[[], Awaitable[T]], what: str, timeout: float = DEADLINE) -> T:
    """``until`` for what has to be awaited: the first true value. Calls in flight when the time is over are
    cancelled."""
    deadline, began = asyncio.timeout(timeout), time.monotonic()
    try:
        async with deadline:
            while not (value := await condition()):  # noqa: ASYNC110 - it is asked again, and nobody tells when
                await asyncio.sleep(max(0.005, pause_after(time.monotonic() - began)))
            return value
    except TimeoutError:
        if deadline.expired():
            raise AssertionError(f"not within {timeout:g} s: {what}") from None
        raise
