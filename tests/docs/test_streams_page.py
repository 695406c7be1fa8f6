"""Run the examples of `docs/streams.md` as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon
from tests.support.protocols import ROOT, install_protocols
from tests.support.two_daemons import add_binding

PAGE = (ROOT / "docs" / "streams.md").read_text()


def block(marker: str) -> str:
    found = re.findall(rf"^<!-- run: {marker} -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_handler_and_the_program(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    packages, file = tmp_path / "packages", tmp_path / "logs" / "log"
    file.parent.mkdir()
    daemon = make_daemon(**install_protocols(packages, Log="log:Log")).start()
    (packages / "log.py").write_text(block("handler"))
    for name in ("alice", "bob"):
        daemon.identity(name, echo=False)
    add_binding(daemon, "alice", "Log", path=str(file))
    ticket = daemon.cli("ticket", "alice").stdout.strip()
    assert run_program(daemon, block("program"), ticket) == "refused: NoLog\n"
    file.write_text("first\nsecond\n")
    assert run_program(daemon, block("program"), ticket) == "second\n"


def run_program(daemon: Daemon, program: str, *arguments: str) -> str:
    """The program's standard output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=daemon.env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
