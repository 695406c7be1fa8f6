"""Units for systemd allow what the daemon needs, and hardly more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_supervisor.user_names import DEFAULT

UNITS: Final = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
USER_UNIT: Final = UNITS / "fastn-p2p.service"
SYSTEM_UNIT: Final = UNITS / "fastn-p2p@.service"
SEPARATE_UNIT: Final = UNITS / "fastn-p2p-separate.service"
MOST_EXPOSED: Final = 2.0
MOST_EXPOSED_WITH_A_ROOT: Final = 3.0
"""The supervisor is root, and may become other users, so systemd finds more."""


def values_of(text: str, option: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{option}=")]


@pytest.mark.parametrize("unit", [USER_UNIT, SYSTEM_UNIT, SEPARATE_UNIT], ids=["user", "system", "separate"])
def test_the_daemon_may_enter_its_sandboxes(unit: Path) -> None:
    allowed = values_of(unit.read_text(), "SystemCallFilter")[0].split()
    calls = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "memfd_secret"}
    assert calls <= set(allowed)


@pytest.mark.parametrize("unit", [SYSTEM_UNIT, SEPARATE_UNIT], ids=["system", "separate"])
def test_all_units_supervise_the_daemon_in_the_same_way(unit: Path) -> None:
    text, other = unit.read_text(), USER_UNIT.read_text()
    for option in (
        *("Type", "NotifyAccess", "Restart", "RestartSec", "RestartPreventExitStatus", "WatchdogSec", "KillMode"),
        *("TimeoutStartSec", "TimeoutStopSec", "OOMPolicy", "LimitNOFILE", "LimitCORE", "LimitMEMLOCK", "UMask"),
        *("RestrictAddressFamilies", "StartLimitBurst", "StartLimitIntervalSec"),
    ):
        assert values_of(text, option) == values_of(other, option) != [], option
    calls = values_of(other, "SystemCallFilter")
    assert values_of(text, "SystemCallFilter") == calls + ["@chown @setuid"] * (unit == SEPARATE_UNIT)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    ("unit", "most", "options"),
    [
        (USER_UNIT, MOST_EXPOSED, ["--user"]),
        (SYSTEM_UNIT, MOST_EXPOSED, []),
        (SEPARATE_UNIT, MOST_EXPOSED_WITH_A_ROOT, []),
    ],
    ids=["user", "system", "separate"],
)
def test_the_hardened_unit_is_little_exposed(tmp_path: Path, unit: Path, most: float, options: list[str]) -> None:
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    command = ["systemd-analyze", "security", *options, "--offline=true", "--no-pager", str(tmp_path / unit.name)]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if level is None:
        pytest.skip(f"this systemd cannot judge a file: {done.stderr}")
    assert float(level[1]) < most, done.stdout


def test_the_users_of_the_separate_unit_are_those_of_the_option() -> None:
    made = [
        line.split()[1]
        for line in (UNITS / "sysusers.d/fastn-p2p.conf").read_text().splitlines()
        if line[:1] in ("u", "g")
    ]
    assert made == [name for key, name in DEFAULT.items() if key != "identities"]
