"""Two daemons that serve the same identity, and a third one that calls it."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastn_p2p_client.ipc.messages import SetIdentityOnline
from tests.support.daemons import Daemon, eventually
from tests.support.processes import signal_if_alive

__all__ = ["Replicas", "copy_identity", "freeze", "kill_all", "new_replicas", "online_replicas", "thaw", "unreachable"]


@dataclass
class Replicas:
    """alice is online at ``caller``; bob is online at each of ``daemons``."""

    caller: Daemon
    daemons: list[Daemon]
    bob: str
    """ID52."""


def copy_identity(name: str, source: Daemon, destination: Daemon) -> None:
    """Copy an identity as docs/operations.md says. The daemons must be stopped, or not know it yet."""
    for part in (f"vault/identities/{name}.key", f"identities/{name}"):
        target = destination.home.path / part
        if (source.home.path / part).is_dir():
            shutil.copytree(source.home.path / part, target)
        else:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(source.home.path / part, target)


@contextmanager
def new_replicas() -> Iterator[Replicas]:
    """Start the three daemons. They find each other by ID52."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        caller, first, second = (
            Daemon(directory / each, directory / "hosts") for each in ("caller", "first", "second")
        )
        with online_replicas(caller, first, second) as replicas:
            yield replicas


@contextmanager
def online_replicas(caller: Daemon, first: Daemon, second: Daemon) -> Iterator[Replicas]:
    """Start three daemons, and bring alice online at the first one, and bob at the two others."""
    try:
        caller.launch()
        first.start()
        second.start()  # so that its home is complete
        bob = first.identity("bob")
        second.stop()
        copy_identity("bob", first, second)
        second.start()
        with second.client() as client:
            client.control(SetIdentityOnline("bob", True))
        assert caller.wait_ready(), caller.report()
        caller.identity("alice")
        yield Replicas(caller, [first, second], bob)
    finally:
        for each in (caller, first, second):
            thaw(each)
            each.clean_up()


def freeze(daemon: Daemon) -> None:
    """Stop every process of a daemon where it is, the supervisor first, so that it restarts nothing."""
    for pid in _pids(daemon):
        signal_if_alive(pid, signal.SIGSTOP)


def thaw(daemon: Daemon) -> None:
    """Let a frozen daemon go on, its supervisor last."""
    for pid in reversed(_pids(daemon)):
        signal_if_alive(pid, signal.SIGCONT)


def _pids(daemon: Daemon) -> list[int]:
    if daemon.process is None:
        return []
    daemon.remember()
    return [daemon.process.pid, *(each["pid"] for each in daemon.tree()["processes"] if each["pid"])]


@contextmanager
def unreachable(daemon: Daemon) -> Iterator[None]:
    """Freeze what carries replies, and the supervisor, which would start another one. What serves goes on."""
    assert daemon.process is not None
    pids = [daemon.process.pid, daemon.pid("network")]
    for pid in pids:
        signal_if_alive(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            signal_if_alive(pid, signal.SIGCONT)


def kill_all(daemon: Daemon) -> None:
    """Kill every process of a daemon at once, as a crash of the machine does: nothing is said to any peer."""
    freeze(daemon)
    for pid in _pids(daemon)[1:]:
        signal_if_alive(pid, signal.SIGKILL)
    daemon.kill()
    eventually(lambda: daemon.process is None, "it is gone")
