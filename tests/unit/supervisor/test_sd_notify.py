"""Notifications to a service manager."""

import os
import socket
from pathlib import Path

import pytest

from fastn_p2p_supervisor.sd_notify import SystemdNotifier


def listen(address: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.settimeout(60)
    return manager


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_alive_stopping(tmp_path: Path, *, abstract: bool) -> None:
    name = f"@fastn-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listen(name.replace("@", "\0")) as manager:
        notifier = SystemdNotifier(name)
        notifier.ready("two\nlines")
        assert manager.recv(4096).decode().splitlines() == ["READY=1", "STATUS=two lines", f"MAINPID={os.getpid()}"]
        notifier.alive()
        assert manager.recv(4096) == b"WATCHDOG=1"
        notifier.stopping("bye")
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=bye"
        notifier.close()


def test_variables_are_taken_out_of_the_environment() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7", "HOME": "/"}
    notifier = SystemdNotifier.from_environment(environment, 7)
    assert environment == {"HOME": "/"}
    assert notifier.watchdog == 5.0
    notifier.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/x"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "ten"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10", "WATCHDOG_PID": "8"},
        {"WATCHDOG_USEC": "10"},
    ],
)
def test_no_watchdog_unless_asked_for(environment: dict[str, str]) -> None:
    notifier = SystemdNotifier.from_environment(dict(environment), 7)
    assert notifier.watchdog is None
    notifier.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative", "/nobody/listens/here"])
def test_does_not_raise_without_a_listener(address: str | None) -> None:
    notifier = SystemdNotifier(address)
    notifier.ready("")
    notifier.alive()
    notifier.stopping("")
    notifier.close()
    notifier.alive()
