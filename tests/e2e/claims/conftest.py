"""Fixtures of tests of claims: a NATS server, and both kinds of stores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.claim_servers import ClaimServer, DatabaseOfClaims, NatsOfClaims, nats_config, write_accounts
from tests.support.nats_servers import NatsProcess, nats_server
from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="package")
def nats() -> Iterator[NatsProcess]:
    """A NATS server with JetStream."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        write_accounts(directory)
        with nats_server(directory, nats_config(directory)) as server:
            yield server


@pytest.fixture(scope="package", params=["nats", "postgres"])
def claim_server(request: pytest.FixtureRequest, nats: NatsProcess) -> ClaimServer:
    """A store of claims. A test that stops it starts it again."""
    if request.param == "nats":
        return NatsOfClaims(nats)
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return DatabaseOfClaims(postgres)
