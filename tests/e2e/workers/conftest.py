"""Fixtures of tests of workers: two daemons and a NATS server for all modules, and workers of bob for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import sync
from tests.support.nats_servers import NatsProcess, nats_server
from tests.support.ports import free_port
from tests.support.two_daemons import TwoDaemons, start_two_daemons
from tests.support.worker_programs import PROTOCOL, WorkerProcess


@pytest.fixture(scope="package")
def daemons() -> Iterator[TwoDaemons]:
    """Shared by all tests of the folder. ``two`` listens for workers, and ``one`` does not."""
    with start_two_daemons(listen=f"127.0.0.1:{free_port()}") as both:
        yield both


@pytest.fixture(scope="package")
def nats() -> Iterator[NatsProcess]:
    """Shared by all tests of the folder, which start it again if they end it."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name, nats_server(Path(name)) as server:
        yield server


@pytest.fixture(scope="package")
def bound(daemons: TwoDaemons, nats: NatsProcess) -> TwoDaemons:
    """bob has Work, which workers serve."""
    with daemons.two.client() as client:
        add_work(client, nats.url)
    return daemons


def add_work(client: sync.Client, url: str, instance: str = "default", **config: object) -> None:
    client.protocols.add("bob", PROTOCOL, instance, config={"url": url, **config}, allow=["everyone"], workers=True)


@pytest.fixture
def start(nats: NatsProcess, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Function that starts a worker of bob."""
    started: list[WorkerProcess] = []

    def start_worker(url: str = "", **options: Any) -> WorkerProcess:
        started.append(WorkerProcess(url or nats.url, "bob", tmp_path, **options))
        return started[-1]

    yield start_worker
    for each in started:
        each.end()
