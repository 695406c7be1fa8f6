"""Attempts of code that its sandbox refuses are reported once; what it allows is not reported."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.identity.refused_attempts import MAX_ATTEMPTS, RefusedAttempts
from fastn_p2p_actors.runtime.sandbox.landlock import EXECUTE, READ, WRITE
from fastn_p2p_actors.runtime.sandbox.sandbox import Sandbox
from fastn_p2p_actors.runtime.sandbox.system_files import python_files


def reported(sandbox: Sandbox, work: Callable[[], object], *, watched: bool = True) -> list[str]:
    """Return what is reported of ``work`` in a forked process: a hook cannot be removed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            found: list[str] = []
            RefusedAttempts(sandbox, sandbox.real_paths(), lambda: watched, found.append).watch()
            with suppress(OSError):
                work()
            os.write(writer, msgspec.json.encode(found))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    os.waitpid(pid, 0)
    return msgspec.json.decode(content, type=list[str])


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for each in ("open/file", "closed/file", "read/file"):
        (tmp_path / each).parent.mkdir()
        (tmp_path / each).touch()
    (tmp_path / "open/link").symlink_to(tmp_path / "closed/file")
    return tmp_path


def test_an_import_that_cannot_write_its_compiled_module_is_no_attempt(places: Path) -> None:
    (places / "closed/fastn_uncompiled.py").write_text("made = True")

    def work() -> None:
        sys.dont_write_bytecode = False
        sys.path.insert(0, str(places / "closed"))
        importlib.import_module("fastn_uncompiled")
        assert (places / "closed/__pycache__").is_dir()

    assert reported(Sandbox({places / "closed": READ}), work) == []


def test_files_and_directories(places: Path) -> None:
    sandbox = Sandbox({places / "open": WRITE, places / "read": READ})
    refused, allowed = places / "closed", places / "open"
    for work, expected in (
        (lambda: (refused / "file").read_bytes(), f"read {refused}/file"),
        (lambda: (allowed / "link").read_bytes(), f"read {refused}/file"),
        (lambda: (refused / "file").write_bytes(b""), f"write {refused}/file"),
        (lambda: (places / "read/file").write_bytes(b""), f"write {places}/read/file"),
        (lambda: (refused / "new").write_bytes(b""), f"write {refused}/new"),
        (lambda: os.listdir(refused), f"read {refused}"),  # noqa: PTH208
        (lambda: list(os.scandir(refused)), f"read {refused}"),
        (lambda: (refused / "directory").mkdir(), f"write {refused}/directory"),
        (lambda: (refused / "file").unlink(), f"write {refused}/file"),
        (lambda: (allowed / "file").rename(refused / "moved"), f"write {refused}/moved"),
        (lambda: os.truncate(refused / "moved", 0), f"write {refused}/moved"),
        (lambda: sqlite3.connect(refused / "data.sqlite").close(), f"write {refused}/data.sqlite"),
    ):
        assert reported(sandbox, work) == [expected]


def test_an_attempt_that_is_allowed_or_finds_nothing_is_not_reported(places: Path) -> None:
    sandbox = Sandbox({places / "open": WRITE, places / "read": READ})

    def work() -> None:
        for each in ("new", "other"):
            (places / "open" / each).write_text("x")
            (places / "open" / each).read_text()
        (places / "open/directory").mkdir()
        os.listdir(places / "read")  # noqa: PTH208
        shutil.rmtree(places / "open/directory")
        (places / "open/other").unlink()
        with suppress(FileNotFoundError):
            (places / "closed/missing").read_bytes()
        with suppress(OSError):
            os.kill(os.getpid(), 0)

    assert reported(sandbox, work) == []


def test_programs_and_sockets() -> None:
    def connect() -> None:
        with socket.socket() as made:
            made.connect(("127.0.0.1", 9))

    def bind() -> None:
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))

    true = os.path.realpath(shutil.which("true") or "")
    run = [lambda: subprocess.run(["true"], check=True), lambda: os.posix_spawn(true, [true], {})]
    for work in run:
        assert reported(Sandbox(), work)[0] == f"program {true}"
        assert reported(Sandbox({Path(true): READ | EXECUTE}, programs=True), work) == []
    assert reported(Sandbox(), connect) == ["connect 127.0.0.1:9"]
    assert reported(Sandbox(connect=frozenset({9})), connect) == []
    assert reported(Sandbox(), bind) == ["listen 127.0.0.1:0"]
    python = Sandbox(dict(python_files()))
    assert reported(python, lambda: socket.getaddrinfo("127.0.0.1", 9)) == []
    assert reported(python, lambda: socket.getaddrinfo("localhost", 9)) == []
    assert reported(Sandbox(), lambda: os.kill(os.getppid(), 0)) == ["a signal to another process"]


def test_each_is_reported_once_and_there_is_a_limit(places: Path) -> None:
    def work() -> None:
        for number in range(2 * MAX_ATTEMPTS):
            for _ in range(2):
                with suppress(OSError):
                    (places / "missing" / f"{number}").read_bytes()
                with suppress(OSError):
                    os.open(places / "closed" / str(number), os.O_CREAT | os.O_WRONLY)

    found = reported(Sandbox(), work)
    assert len(found) == len(set(found)) == MAX_ATTEMPTS


def test_the_daemons_own_code_is_not_reported(places: Path) -> None:
    assert reported(Sandbox(), lambda: (places / "closed/file").read_bytes(), watched=False) == []
