"""A PostgreSQL server of the tests' own, on a port of loopback. It syncs to disk, as a real one does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.support.daemons import eventually
from tests.support.ports import free_port
from tests.support.processes import send_signal

__all__ = ["PASSWORD", "PostgresServer", "find_programs", "running_postgres"]

PASSWORD: Final = "correct-horse"
_USER: Final = "owner"
_ACCOUNT: Final = 65534 if os.geteuid() == 0 else None
"""User of the server if the tests are root, ``nobody``: PostgreSQL refuses root."""


def find_programs() -> Path | None:
    """Return the directory of PostgreSQL's programs; None if it is not installed."""
    found = shutil.which("initdb")
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    paths = [Path(found)] if found else []
    return next((each.resolve().parent for each in (*candidates, *paths) if each.exists()), None)


class PostgresServer:
    """Server with a superuser ``owner`` that needs no password, and a user ``mailer`` that needs one."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = free_port()

    def create(self) -> None:
        """Make the data directory."""
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if _ACCOUNT is not None:
            os.chown(data, _ACCOUNT, _ACCOUNT)
        options = ["--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", str(data), *options)
        (data / "pg_hba.conf").write_text(
            "host all mailer,alice 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=_ACCOUNT,
            group=_ACCOUNT,
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> PostgresServer:
        """Start the server, and wait until it accepts connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": 60,
            "fsync": "on",
            "autovacuum": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                user=_ACCOUNT,
                group=_ACCOUNT,
            )
        eventually(self._answers, "PostgreSQL accepts connections")
        return self

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "log").read_text()
            return False
        return True

    def stop(self, number: int = signal.SIGINT) -> None:
        """End the server: at once, or like a power cut with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            children = self._children(process.pid) if number == signal.SIGKILL else []
            process.send_signal(number)
            process.wait(60)
            for pid in children:
                with suppress(ProcessLookupError):  # it has noticed that the first process is gone
                    send_signal(pid, number)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server, which runs, and to each process of a connection."""
        assert self._process is not None
        for pid in (self._process.pid, *self._children(self._process.pid)):
            send_signal(pid, number)

    def _children(self, pid: int) -> list[int]:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """Connect as the superuser. Each statement is a transaction unless one is begun."""
        options: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": _USER, "connect_timeout": 2}
        return psycopg.connect(**options, dbname=database, autocommit=True)

    def execute(self, query: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser."""
        with self.connect(database) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def backends(self, database: str) -> list[int]:
        """Return the processes of connections to a database."""
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        return [pid for (pid,) in self.execute(query)]

    def new_database(self) -> str:
        """Create an empty database; return its name."""
        self._databases += 1
        name = f"test{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str, user: str = _USER, parameters: str = "") -> str:
        """Return the URL for the config of a binding."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{parameters}"


@contextmanager
def running_postgres(programs: Path) -> Iterator[PostgresServer]:
    """A new server, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="fastn-pg-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = PostgresServer(programs, folder)
        server.create()
        try:
            server.start()
            server.execute(f"CREATE ROLE mailer LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # without a checkpoint: nothing is read again
