"""Secret Service of GNOME Keyring, on a D-Bus session of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PROGRAMS: Final = ("dbus-daemon", "gnome-keyring-daemon")


def has_secret_service() -> bool:
    return all(map(shutil.which, _PROGRAMS))


@contextmanager
def secret_service(folder: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Have commands with this environment find an unlocked keyring, which ends with its files in ``folder``."""
    home, runtime = folder / "desktop", folder / "session"
    for each in (home, runtime):
        each.mkdir(0o700)
    added = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "XDG_DATA_HOME": str(home / "data")}
    before = {name: environment.get(name) for name in (*added, "DBUS_SESSION_BUS_ADDRESS")}
    environment.update(added)
    command = ["dbus-daemon", "--session", "--nofork", "--nosyslog", "--print-address=1"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True) as bus:
        try:
            assert bus.stdout is not None
            environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
            keyring = ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"]
            with subprocess.Popen(
                keyring,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as service:
                assert service.stdin is not None
                service.stdin.write(b"login")
                service.stdin.close()
                try:
                    yield
                finally:
                    service.kill()
        finally:
            bus.kill()
            for name, value in before.items():
                if value is None:
                    environment.pop(name, None)
                else:
                    environment[name] = value
