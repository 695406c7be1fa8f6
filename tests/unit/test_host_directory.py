"""The host directory: what a network process that was killed leaves there goes with the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_actors.network.host_directory import HostDirectory

from .stub_colleagues import KEYS

OURS, THEIRS = b"\x01" * 32, b"\x02" * 32


class Killed(BaseException):
    """Ends whatever runs, as a SIGKILL does."""


def interrupted(path: Path, endpoint: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is written by a process that dies before the file has its name."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            HostDirectory(path, endpoint).publish(KEYS[0], b"record")


def test_an_interrupted_write_is_swept_by_the_same_daemon_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    interrupted(tmp_path, OURS, monkeypatch)
    interrupted(tmp_path, THEIRS, monkeypatch)
    assert len(list(tmp_path.iterdir())) == 2
    HostDirectory(tmp_path, OURS).open()
    (left,) = tmp_path.iterdir()  # the other daemon may be writing it just now
    assert THEIRS.hex()[:16] in left.name
    HostDirectory(tmp_path, THEIRS).open()
    assert not list(tmp_path.iterdir())


def test_a_new_process_keeps_what_was_published(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    HostDirectory(tmp_path, OURS).publish(KEYS[0], b"record")
    HostDirectory(tmp_path, OURS).open()
    (published,) = tmp_path.iterdir()
    assert published.read_bytes() == b"record"
