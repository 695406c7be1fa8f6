"""URL of a store of claims: ``postgresql://USER@HOST/DATABASE`` or ``nats://HOST:4222/BUCKET``. It has no secret."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from ..nats_client.nats_server import NatsServer
from ..permissions import Permissions
from ..postgres.postgres_url import absolute_file, parse_url

if TYPE_CHECKING:
    from ..postgres.postgres_url import PostgresUrl
    from .claim_store import ClaimStore

_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARAMETERS: Final = ("credentials", "ca")
_EXAMPLES: Final = "postgresql://USER@HOST:5432/DATABASE or nats://HOST:4222/BUCKET"


class ClaimsUrl(ABC):
    """Store of claims, and how to connect to it."""

    @abstractmethod
    def permissions(self) -> Permissions:
        """Return what a binding needs to use it."""

    @abstractmethod
    def check(self, distribution: str) -> None:
        """Check that the library is installed, and that the files can be used. Blocks, and does not connect.

        Args:
            distribution: the distribution whose extra brings the library.

        Raises:
            ValueError: they cannot; the message says what to do.
        """

    @abstractmethod
    def open(self, user: str) -> ClaimStore:
        """Return the store, which connects at its first use.

        Args:
            user: text that the server shows for the connections.
        """


class BucketUrl(ClaimsUrl):
    """Key-value bucket of a NATS server.

    Args:
        server: the server.
        bucket: name of the bucket.
    """

    def __init__(self, server: NatsServer, bucket: str) -> None:
        self._server = server
        self._bucket = bucket

    @classmethod
    def of(cls, server: NatsServer, bucket: str) -> BucketUrl:
        """Return the bucket of this name. Raises ValueError."""
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("the name of a bucket has letters, digits, - and _, 64 at most")
        return cls(server, bucket)

    def permissions(self) -> Permissions:
        files = [each for each in (self._server.credentials, self._server.ca) if each]
        return Permissions(connect=self._server.addresses(), read=files)

    def check(self, distribution: str) -> None:
        if find_spec("nats") is None:
            raise ValueError(f"nats-py is not installed: pip install '{distribution}[nats]'")
        self._server.check()

    def open(self, user: str) -> ClaimStore:
        from .nats_bucket import NatsBucket

        return NatsBucket(self._server, self._bucket, user)


class DatabaseUrl(ClaimsUrl):
    """Table of a PostgreSQL database."""

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url

    def permissions(self) -> Permissions:
        return self._url.permissions()

    def check(self, distribution: str) -> None:
        self._url.check_files(distribution)

    def open(self, user: str) -> ClaimStore:
        from .postgres_claims import PostgresClaims

        return PostgresClaims(self._url, user)


def parse_claims(text: str) -> ClaimsUrl:
    """Return the store that a URL names. No message contains a secret.

    Raises:
        ValueError: the URL cannot be used; the message says how to write it.
    """
    if text.startswith(("postgresql:", "postgres:")):
        return DatabaseUrl(parse_url(text))
    if not text.startswith(("nats://", "tls://")):
        raise ValueError(f"this is no URL of a store of claims. Write {_EXAMPLES}")
    try:
        parts = urlsplit(text)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"this is no URL of a store of claims. Write {_EXAMPLES}") from None
    names = [name for name, _ in query]
    if any(name not in _PARAMETERS or names.count(name) > 1 for name in names):
        raise ValueError(f"the URL of a bucket has {' and '.join(_PARAMETERS)} after the question mark, each once")
    files = {name: absolute_file(name, path) for name, path in query}
    hosts = ",".join(f"{parts.scheme}://{host}" for host in parts.netloc.split(","))
    server = NatsServer(hosts, files.get("credentials", ""), files.get("ca", ""))
    server.addresses()
    if not parts.path[1:]:
        raise ValueError("the URL names no bucket. Write nats://HOST:4222/BUCKET")
    return BucketUrl.of(server, unquote(parts.path[1:]))
