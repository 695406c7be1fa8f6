"""URL of a PostgreSQL database: ``postgresql://user@host:5432/database``.

Passwords never stand in it, because configs and programs are shown: a file holds them.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ..permissions import Permissions

CONNECT_SECONDS: Final = 3
"""Seconds to connect."""
_SSL_MODES: Final = ("disable", "require", "verify-ca", "verify-full")
_PARAMETERS: Final = ("passfile", "sslmode", "sslrootcert")
_EXAMPLE: Final = "postgresql://USER@HOST:5432/DATABASE"


class PostgresUrl(NamedTuple):
    """A database, and how to connect to it. Its text never contains a secret."""

    user: str
    host: str
    port: int
    database: str
    sslmode: str
    passfile: str = ""
    sslrootcert: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{self.user}@{host}:{self.port}/{self.database}"

    def permissions(self) -> Permissions:
        """Return what a binding needs to use it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Permissions(
            read=[each for each in (self.passfile, self.sslrootcert) if each], connect=[f"{host}:{self.port}"]
        )

    def check_files(self, distribution: str) -> None:
        """Check that the library is installed, and that the files can be used. Blocks.

        Args:
            distribution: the distribution whose extra brings the library.

        Raises:
            ValueError: they cannot; the message says what to do.
        """
        if find_spec("psycopg") is None:
            raise ValueError(f"PostgreSQL needs the extra `postgres`: pip install '{distribution}[postgres]'")
        if self.passfile:
            try:
                found = Path(self.passfile).stat()
            except OSError as error:
                raise ValueError(f"passfile: {self.passfile}: {(error.strerror or '').lower()}") from None
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"passfile: {self.passfile} is no file")
            if found.st_mode & 0o077:
                raise ValueError(f"passfile: others may read it: chmod 600 {self.passfile}")
            if not os.access(self.passfile, os.R_OK):
                raise ValueError(f"passfile: this user may not read {self.passfile}")
        if self.sslrootcert and not os.access(self.sslrootcert, os.R_OK):
            raise ValueError(f"sslrootcert: this user cannot read {self.sslrootcert}")

    def options(self, application: str) -> dict[str, Any]:
        """Return the parameters of a connection. What the server asks for instead of them is refused.

        Args:
            application: text that the server shows for the connection.
        """
        files = {"passfile": self.passfile, "sslrootcert": self.sslrootcert}
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "dbname": self.database,
            "sslmode": self.sslmode,
            "sslcertmode": "disable",
            "gssencmode": "disable",
            # Another process at this port must not get the password in plain text.
            "require_auth": "scram-sha-256" if self.passfile else "none",
            "connect_timeout": CONNECT_SECONDS,
            "application_name": application,
            "client_encoding": "utf8",
            **{name: path for name, path in files.items() if path},
        }


def parse_url(text: str) -> PostgresUrl:
    """Return the database that a URL names. No message contains the URL, which may have a password.

    Raises:
        ValueError: the URL cannot be used; the message says how to write it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or 5432
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"this is no URL of a database. Write {_EXAMPLE}") from None
    if parts.scheme not in ("postgresql", "postgres") or parts.fragment or "\0" in unquote(text):
        raise ValueError(f"this is no URL of a database. Write {_EXAMPLE}")
    names = [name for name, _ in query]
    if parts.password is not None or "password" in names:
        raise ValueError(
            "the URL contains a password, which commands would show. Write HOST:PORT:DATABASE:USER:PASSWORD into a "
            f"file of mode 600, and name the file instead: {_EXAMPLE}?passfile=/PATH"
        )
    for name in names:
        if name not in _PARAMETERS or names.count(name) > 1:
            raise ValueError(f"a URL has {', '.join(_PARAMETERS)} after the question mark, each once")
    host, user, database = unquote(parts.hostname or ""), unquote(parts.username or ""), unquote(parts.path[1:])
    if not host or host.startswith("/"):
        raise ValueError(
            "the URL names no host. An identity's process makes no Unix sockets, so PostgreSQL has to listen at "
            f"127.0.0.1: {_EXAMPLE}"
        )
    if not user or not database:
        raise ValueError(f"the URL lacks {'a database' if user else 'a user'}. Write {_EXAMPLE}")
    found = dict(query)
    files = {name: absolute_file(name, found[name]) if found.get(name) else "" for name in ("passfile", "sslrootcert")}
    sslmode = found.get("sslmode") or ("disable" if _is_loopback(host) else "")
    if sslmode not in _SSL_MODES:
        raise ValueError(
            "say whether the connection is encrypted: ?sslmode=verify-full&sslrootcert=/PATH, or ?sslmode=disable in "
            "a network that you trust"
        )
    if sslmode.startswith("verify-") and not files["sslrootcert"]:
        raise ValueError(f"{sslmode} needs the file with the server's certificate authority: &sslrootcert=/PATH")
    return PostgresUrl(user, host, port, database, sslmode, **files)


def absolute_file(name: str, path: str) -> str:
    """Return the path of a file that a URL names, with the home directory for ``~``. Raises ValueError."""
    try:
        found = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: {error}") from None
    if not found.is_absolute():
        raise ValueError(f"{name}: the path must be absolute")
    return str(found)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
