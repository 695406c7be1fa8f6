"""What `docs/streams.md` shows is run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from tests.e2e.test_readme import ROOT, Machine, install

PAGE = (ROOT / "docs" / "streams.md").read_text()


def block(marker: str) -> str:
    found = re.findall(rf"^<!-- run: {marker} -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_handler_and_the_program(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "home")
    (machine.packages / "log.py").write_text(block("handler"))
    install(machine, "log", "Log = log:Log")
    config = shlex.quote(json.dumps({"path": str(tmp_path / "log")}))
    with machine.daemon():
        for name in ("alice", "bob"):
            machine.shell(f"fastn-p2p create-identity {name}; fastn-p2p identity-online {name}")
        machine.shell(f"fastn-p2p add-protocol alice --protocol Log --config {config}")
        ticket = machine.shell("fastn-p2p ticket alice").strip()
        assert machine.python(block("program"), ticket) == "refused: NoLog\n"
        (tmp_path / "log").write_text("first\nsecond\n")
        assert machine.python(block("program"), ticket) == "second\n"
