"""Tests of mailboxes and conversations run in SQLite, and once more in PostgreSQL, if that is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.stores import StoresOfTests

_FIXTURES = {"tmp_path", "database"}
"""Tests without these have no store."""
_BOTH = ("tests/unit/protocols/mail/test_delivery", "tests/unit/protocols/mail/test_inbox", "tests/unit/protocols/chat")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of stored mails and messages with both engines."""
    stores = any(each in metafunc.definition.nodeid for each in _BOTH)
    if (
        stores
        and _FIXTURES & set(metafunc.fixturenames)
        and metafunc.definition.get_closest_marker("sqlite_only") is None
    ):
        metafunc.parametrize("engine", ["sqlite", "postgres"], indirect=True, scope="function")


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Choose the engine of the stores that tests open."""
    if getattr(request, "param", "sqlite") == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        with StoresOfTests.in_postgres(server.url("postgres")):
            yield
    else:
        yield
