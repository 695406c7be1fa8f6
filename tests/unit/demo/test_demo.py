"""``fastn-p2p demo`` with a failing step: it reports the step and leaves nothing behind."""

import sys
import tempfile
from pathlib import Path

import pytest

from fastn_p2p.cli import main
from fastn_p2p.demo import daemon


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_daemon_that_does_not_start(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = "import sys; print('no such network', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(daemon, "PROGRAM", (sys.executable, "-c", fails))
    assert main(["demo"]) == 70
    out = capsys.readouterr().out
    assert "$ fastn-p2p daemon --network local" in out
    assert "daemon one ended during its start with exit code 3" in out
    assert "one.log: no such network" in out
    assert list(scratch.iterdir()) == []


def test_a_daemon_that_never_becomes_ready(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(daemon, "PROGRAM", (sys.executable, "-c", "import signal; signal.pause()"))
    monkeypatch.setattr(daemon, "START_TIMEOUT", 0.3)
    assert main(["demo"]) == 70
    assert "was not ready within 0 s: no daemon is running" in capsys.readouterr().out
    assert list(scratch.iterdir()) == []
