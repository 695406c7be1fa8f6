"""Address, credentials and CA of a NATS server. Secrets are in files that only their owner can read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors.p2p_error import LocalError
from ..private_paths import read_private_file

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT: Final = 4222
MAX_FILE: Final = 64 * 1024
"""Bytes of a file with credentials."""
_URL: Final = re.compile(r"(nats|tls)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")
_SEED: Final = re.compile(r"SU[A-Z2-7]{20,}")


class NatsUnusable(LocalError):
    """A NATS server does not answer, or refuses this program. ``reason`` says why, and what to do."""

    code = "nats-unusable"
    transient = True
    template = "the NATS server {server} cannot be used: {reason}"
    server: str
    reason: str


class InvalidServer(ValueError):
    """The URL, or a file that goes with it, cannot be used. The message says why, and what to do."""


class _Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str = ""
    password: str = ""
    token: str = ""


class NatsServer(msgspec.Struct, frozen=True):
    """NATS server, or several of one cluster.

    Attributes:
        url: ``nats://HOST:PORT``, or ``tls://HOST:PORT``; several with commas between them.
        credentials: path of a file; empty for none. It is a ``.creds`` file of NATS, an nkey seed, or TOML with
            ``user`` and ``password``, or ``token``.
        ca: path of a file with the certificates that the server's certificate is checked with; empty for those of the
            system.
    """

    url: str
    credentials: str = ""
    ca: str = ""

    def addresses(self) -> list[str]:
        """Return host and port of each server.

        Raises:
            InvalidServer: the URL is none.
        """
        found = []
        for each in self.url.split(","):
            match = _URL.fullmatch(each.strip())
            if match is None:
                raise InvalidServer(_problem_of(each.strip()))
            port = int(match[3] or DEFAULT_PORT)
            if not 1 <= port <= 65535:
                raise InvalidServer(f"{match[3]} is not a port. Write nats://HOST:PORT")
            found.append(f"{match[2]}:{port}")
        return found

    @property
    def needs_tls(self) -> bool:
        """True if nothing may be sent to a server without TLS."""
        return bool(self.ca) or "tls://" in self.url

    def check(self) -> None:
        """Check the URL and the files. Raises InvalidServer."""
        self.addresses()
        for path in filter(None, (self.credentials, self.ca)):
            if not Path(path).is_absolute():
                raise InvalidServer(f"the path {path!r} is not absolute")
        self.options()

    def options(self) -> dict[str, Any]:
        """Return the options for nats-py. Reads the files.

        Raises:
            InvalidServer: one of them cannot be used.
        """
        found: dict[str, Any] = {"servers": [f"nats://{each}" for each in self.addresses()]}
        if self.needs_tls:
            found["tls"] = self._tls()
        if self.credentials:
            found |= _credentials(self.credentials)
        return found

    def _tls(self) -> ssl.SSLContext:
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca or None)
        except ssl.SSLError:
            raise InvalidServer(f"the CA file {self.ca} has no certificates, which are PEM") from None
        except OSError as error:
            raise InvalidServer(f"the CA file {self.ca} cannot be read: {(error.strerror or '').lower()}") from None


def _problem_of(url: str) -> str:
    if "@" in url:
        return "a URL with a secret is seen by others: write it into a file, and give its path as credentials"
    if "://" not in url:
        return f"{url!r} is not the URL of a NATS server. Write nats://{url or 'HOST'}"
    return f"{url!r} is not the URL of a NATS server. Write nats://HOST:PORT or tls://HOST:PORT"


def _credentials(path: str) -> dict[str, Any]:
    text = _read_secret(path)
    if "BEGIN NATS USER JWT" in text:
        return {"user_credentials": path}
    if _SEED.fullmatch(text.strip()):
        return {"nkeys_seed_str": text.strip()}
    try:
        found = msgspec.convert(tomllib.loads(text), _Credentials)
    except (ValueError, msgspec.ValidationError):
        found = _Credentials()
    if bool(found.token) == bool(found.user):
        raise InvalidServer(
            f'{path} is not a file with credentials. Write user = "NAME" and password = "...", or token = "...", '
            "or use a .creds file or an nkey seed"
        )
    return {"token": found.token} if found.token else {"user": found.user, "password": found.password}


def _read_secret(path: str) -> str:
    try:
        return read_private_file(Path(path), MAX_FILE)
    except ValueError as error:
        raise InvalidServer(f"the credentials in {path} cannot be used: {error}") from None
