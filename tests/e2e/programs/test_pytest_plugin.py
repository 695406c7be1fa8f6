"""The plugin of pytest, in a run of pytest of its own, as a user of fastn-p2p has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

_PAGE = Path(__file__).resolve().parents[3] / "docs/writing-protocols.md"
_EXAMPLE = re.compile(r"<!-- run: pytest -->\n```python\n(.*?)```", re.DOTALL)


def test_the_example_of_the_docs_passes_and_leaves_nothing(tmp_path: Path) -> None:
    (found,) = _EXAMPLE.findall(_PAGE.read_text())
    (tmp_path / "test_echo.py").write_text(found)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FASTN_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--rootdir={tmp_path}", "--basetemp", str(tmp_path / "made")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^2 passed", done.stdout, re.MULTILINE)
    left = [each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(each.info["cmdline"] or ())]
    assert left == []
