"""Units for systemd allow what the daemon needs, and hardly more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

UNITS: Final = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNIT: Final = UNITS / "fastn-p2p.service"
MOST_EXPOSED: Final = 2.0


def values_of(text: str, option: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{option}=")]


def test_the_daemon_may_enter_its_sandboxes() -> None:
    allowed = values_of(UNIT.read_text(), "SystemCallFilter")[0].split()
    calls = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "memfd_secret"}
    assert calls <= set(allowed)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_hardened_unit_is_little_exposed(tmp_path: Path) -> None:
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    command = ["systemd-analyze", "security", "--user", "--offline=true", "--no-pager", str(tmp_path / UNIT.name)]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if level is None:
        pytest.skip(f"this systemd cannot judge a file: {done.stderr}")
    assert float(level[1]) < MOST_EXPOSED, done.stdout
