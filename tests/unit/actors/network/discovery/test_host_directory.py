"""The host directory: records come and go at once, and a killed process leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_actors.network.discovery.host_directory import HostDirectory
from tests.support.signer import Signer
from tests.support.stub_actors import KEYS

OURS, THEIRS = b"\x01" * 32, b"\x02" * 32


class Killed(BaseException):
    """Ends the running code, as SIGKILL does."""


def interrupted(path: Path, endpoint: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is written by a process that dies before the file has its name."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            HostDirectory(path, endpoint).publish(KEYS[0], b"record")


def test_deletes_unfinished_writes_of_the_same_daemon_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    interrupted(tmp_path, OURS, monkeypatch)
    interrupted(tmp_path, THEIRS, monkeypatch)
    assert len(list(tmp_path.iterdir())) == 2
    HostDirectory(tmp_path, OURS).open()
    (left,) = tmp_path.iterdir()  # the other daemon may be writing it just now
    assert THEIRS.hex()[:16] in left.name
    HostDirectory(tmp_path, THEIRS).open()
    assert not list(tmp_path.iterdir())


def test_ignores_a_record_that_is_valid_for_too_long(tmp_path: Path) -> None:
    """Nor one with such a delegation: a stolen transport key would be good for as long."""
    tmp_path.chmod(0o700)
    key = bytes(Signer().key)
    directory = HostDirectory(tmp_path, OURS)
    for number, blob in enumerate(
        (
            Signer().record(issued=0, expires=2**40 - 1),
            Signer().record(delegations=[Signer().delegation(not_before=0, not_after=2**40 - 1)]),
            Signer().record(sequence=7),
        )
    ):
        HostDirectory(tmp_path, bytes([number]) * 32).publish(Signer().key, blob)
    assert [record.sequence for record in directory.records_of(key)] == [7]


def test_sees_at_once_that_a_record_comes_or_goes(tmp_path: Path) -> None:
    """Also right after another change: the directory's time is that of a clock with coarse steps."""
    tmp_path.chmod(0o700)
    directory, other = HostDirectory(tmp_path, OURS), HostDirectory(tmp_path, THEIRS)
    for number in range(50):
        who = Signer(f"identity {number}")
        assert directory.records_of(bytes(who.key)) == []
        other.publish(who.key, who.record())
        assert len(directory.records_of(bytes(who.key))) == 1
        if number % 2:
            other.unpublish(who.key)
            assert directory.records_of(bytes(who.key)) == []


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories that were listed."""
    found: list[Path] = []
    scandir = os.scandir

    def counted(path: Path) -> Any:
        found.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    return found


def test_does_not_list_an_unchanged_directory_again(tmp_path: Path, listed: list[Path]) -> None:
    tmp_path.chmod(0o700)
    directory = HostDirectory(tmp_path, OURS)
    directory.publish(Signer().key, Signer().record())
    os.utime(tmp_path, (1, 1))  # long ago
    for number in range(100):
        directory.records_of(bytes(Signer(f"identity {number}").key))
    assert len(directory.records_of(bytes(Signer().key))) == 1
    assert len(listed) == 1


def test_lists_the_directory_once_for_many_that_are_published_together(tmp_path: Path, listed: list[Path]) -> None:
    tmp_path.chmod(0o700)
    directory, other = HostDirectory(tmp_path, OURS), HostDirectory(tmp_path, THEIRS)
    directory.records_of(bytes(Signer().key))
    for number in range(100):
        who = Signer(f"identity {number}")
        directory.signed_records_of(bytes(who.key), late_by=3600.0)
        directory.publish(who.key, who.record())
    assert len(listed) == 1
    other.publish(Signer().key, Signer().record())
    assert directory.signed_records_of(bytes(Signer().key), late_by=3600.0) == []
    assert directory.signed_records_of(bytes(Signer().key)) == [Signer().record()]


def test_a_new_process_keeps_published_records(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    HostDirectory(tmp_path, OURS).publish(KEYS[0], b"record")
    HostDirectory(tmp_path, OURS).open()
    (published,) = tmp_path.iterdir()
    assert published.read_bytes() == b"record"
