"""A daemon at which a backup of an owner's daemon is restored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemons import Daemon
from tests.support.joined_replicas import replicas_of

__all__ = ["back_up", "new_daemon_beside", "remove_home", "restore", "states_at"]


def back_up(owner: Daemon) -> Path:
    """Make a backup of a daemon, and return its file. The passphrase is in a file beside it."""
    folder = Path(owner.home.path).parent
    file, passphrase = folder / "backup.age", folder / "passphrase"
    passphrase.write_text("correct horse\n")
    made = owner.cli("backup", "create", str(file), "--force", "--passphrase-file", str(passphrase))
    assert made.returncode == 0, (made, owner.report())
    return file


def restore(daemon: Daemon, backup: Path) -> str:
    """Restore a backup at a daemon, and return what the command has written."""
    done = daemon.cli("backup", "restore", str(backup), "--passphrase-file", str(backup.parent / "passphrase"))
    assert done.returncode == 0, (done, daemon.report())
    return done.stdout + done.stderr


@contextmanager
def new_daemon_beside(daemon: Daemon, name: str) -> Iterator[Daemon]:
    """Start a daemon with an empty home, in the environment of another one."""
    home = Path(daemon.home.path).parent / name
    made = Daemon(home, home.parent / "hosts", **{k: v for k, v in daemon.env.items() if k == "PYTHONPATH"})
    try:
        yield made.start()
    finally:
        made.clean_up()
        shutil.rmtree(home, ignore_errors=True)


def remove_home(daemon: Daemon) -> None:
    """Kill a daemon, and delete all that it had on disk."""
    daemon.kill()
    daemon.clean_up()
    shutil.rmtree(daemon.home.path)


def states_at(daemon: Daemon) -> dict[str, str]:
    """Return the states that ``fastn-p2p replica list`` shows, by the name of the other daemon."""
    return {each.name: each.state for each in replicas_of(daemon)}
