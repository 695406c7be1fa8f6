"""Log lines reach the journal with a priority, and never make a process wait."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator

import pytest

from fastn_p2p_actors.runtime.journal import find_journal
from fastn_p2p_actors.runtime.log_files import configure_logging
from fastn_p2p_client.home import Home
from tests.support.stub_actors import temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    with temporary_home() as made:
        yield made
    for each in root.handlers:
        each.close()
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def stream_of(sock: socket.socket) -> str:
    found = os.fstat(sock.fileno())
    return f"{found.st_dev}:{found.st_ino}"


def test_lines_have_priorities_and_no_time(
    home: Home, streams: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, stderr = streams
    monkeypatch.setenv("JOURNAL_STREAM", stream_of(stderr))
    writer = find_journal("network", stream_of(stderr), stderr.fileno())
    assert writer is not None
    monkeypatch.setattr("fastn_p2p_actors.runtime.journal.find_journal", lambda _name, _stream: writer)
    log = configure_logging(home, "network")
    log.warning("a relay is lost\x1b[2J")
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("it failed")
    writer.close()
    lines = journal.recv(2**16).decode().splitlines()
    assert lines[0] == "<4>network: WARNING network: a relay is lost\\x1b[2J"
    assert lines[1] == "<3>network: ERROR network: it failed"
    assert lines[-1] == "<3>network: ValueError: the reason"
    assert all(line.startswith("<3>network: ") for line in lines[1:])
    assert (home.logs / "network.log").read_text().count("it failed") == 1


def test_a_journal_that_does_not_read_costs_lines_only(streams: tuple[socket.socket, socket.socket]) -> None:
    _, stderr = streams
    writer = find_journal("network", stream_of(stderr), stderr.fileno())
    assert writer is not None
    for _ in range(10_000):
        writer.write(logging.INFO, "x" * 200)
    writer.close()


@pytest.mark.parametrize("value", ["1:2", "none"])
def test_standard_error_that_leads_elsewhere_gets_nothing(
    value: str, streams: tuple[socket.socket, socket.socket]
) -> None:
    assert find_journal("network", value, streams[1].fileno()) is None
