"""``fastn-p2p service``: units below another root, so that no service manager is touched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli import main, service_units
from fastn_p2p.cli.service_units import quote
from fastn_p2p.console.exit_codes import ExitCode

SCOPES = ("user", "system")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without settings, and an installation where one for the system belongs."""
    monkeypatch.setenv("HOME", "/home/ann")
    for name in ("XDG_CONFIG_HOME", "FASTN_HOME"):
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "opt/fastn-p2p/bin/fastn-p2p"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setattr(sys, "prefix", str(script.parent.parent))


def service(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = ExitCode.OK) -> dict[str, Any]:
    """Run a command of the group. Return its JSON."""
    assert main(["service", *map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def written(root: Path) -> dict[str, str]:
    """Every file below ``root`` by its path there."""
    return {f"/{file.relative_to(root)}": file.read_text() for file in root.rglob("*") if file.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_the_user_unit_starts_this_installation(capsys: pytest.CaptureFixture[str], tmp_path: Path, root: Path) -> None:
    service(capsys, "install", "--root", root)
    ((path, text),) = written(root).items()
    assert path == "/home/ann/.config/systemd/user/fastn-p2p.service"
    assert f"\nExecStart={tmp_path}/opt/fastn-p2p/bin/fastn-p2p daemon\n" in text
    assert "WantedBy=default.target" in text
    assert "Environment=" not in text


def test_the_system_unit_has_a_user_for_each_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, root: Path
) -> None:
    found = service(capsys, "install", "--system", "--root", root)
    files = written(root)
    assert sorted(files) == ["/etc/systemd/system/fastn-p2p-separate.service", "/etc/sysusers.d/fastn-p2p.conf"]
    unit = files["/etc/systemd/system/fastn-p2p-separate.service"]
    assert f"\nExecStart={tmp_path}/opt/fastn-p2p/bin/fastn-p2p daemon --separate-users default\n" in unit
    assert found["next"] == [f"systemd-sysusers --root={root}", f"systemctl --root={root} enable fastn-p2p-separate"]


def test_nothing_is_enabled_and_the_next_command_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/systemctl")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    assert main(["service", "install"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert out == f"wrote {tmp_path}/config/systemd/user/fastn-p2p.service\n"
    assert err == "Next: systemctl --user daemon-reload && systemctl --user enable --now fastn-p2p\n"
    assert [*(tmp_path / "config/systemd/user").iterdir()] == [tmp_path / "config/systemd/user/fastn-p2p.service"]


def test_a_home_of_its_own_is_in_the_unit(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    service(capsys, "install", "--root", root, "--home", "/srv/p2p 100%")
    (text,) = written(root).values()
    assert '\nEnvironment="FASTN_HOME=/srv/p2p 100%%"\nExecStart=' in text
    assert service(capsys, "status", "--root", root, "--home", "/srv/p2p 100%")["units"].popitem()[1] == "current"
    assert service(capsys, "install", "--system", "--root", root, "--home", "/srv/p2p", code=ExitCode.USAGE)["error"]


@pytest.mark.parametrize("scope", SCOPES)
def test_installing_again_changes_nothing(capsys: pytest.CaptureFixture[str], root: Path, scope: str) -> None:
    changed = service(capsys, "install", f"--{scope}", "--root", root)["changed"]
    before = written(root)
    assert sorted(changed) == sorted(f"{root}{path}" for path in before)
    assert service(capsys, "install", f"--{scope}", "--root", root)["changed"] == []
    assert written(root) == before


def test_a_unit_of_another_version_is_replaced_and_the_difference_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    with monkeypatch.context() as other:
        read = service_units._read
        other.setattr(service_units, "_read", lambda name: read(name).replace("WatchdogSec=10", "WatchdogSec=5"))
        service(capsys, "install", "--root", root)
    assert "outdated" in service(capsys, "status", "--root", root)["units"].values()
    assert main(["service", "install", "--root", str(root)]) == ExitCode.OK
    shown = capsys.readouterr().out.splitlines()
    assert "-WatchdogSec=5" in shown
    assert "+WatchdogSec=10" in shown
    assert "current" in service(capsys, "status", "--root", root)["units"].values()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("command", ["install", "remove"])
def test_edited_units_are_kept_unless_forced(
    capsys: pytest.CaptureFixture[str], root: Path, scope: str, command: str
) -> None:
    service(capsys, "install", f"--{scope}", "--root", root)
    edited = root / next(iter(written(root))).lstrip("/")
    edited.write_text(edited.read_text() + "# mine\n")
    before = written(root)
    error = service(capsys, command, f"--{scope}", "--root", root, code=ExitCode.EXISTS)["error"]
    assert (error["code"], error["fields"]) == ("unit-edited", {"path": str(edited)})
    assert written(root) == before
    service(capsys, command, f"--{scope}", "--root", root, "--force")
    assert "# mine" not in "".join(written(root).values())


def test_removal_leaves_nothing_and_may_be_repeated(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    service(capsys, "install", "--system", "--root", root)
    assert len(service(capsys, "remove", "--system", "--root", root)["removed"]) == 2
    assert written(root) == {}
    assert service(capsys, "remove", "--system", "--root", root)["removed"] == []


def test_an_enabled_service_is_disabled_first(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    service(capsys, "install", "--root", root)
    (path,) = root.rglob("*.service")
    wants = path.with_name("default.target.wants")
    wants.mkdir()
    (wants / path.name).symlink_to(path)
    assert service(capsys, "status", "--root", root)["enabled"]
    error = service(capsys, "remove", "--root", root, code=ExitCode.EXISTS)["error"]
    assert error["message"].endswith(f"systemctl --user --root={root} disable fastn-p2p")


def test_status_of_what_is_not_installed(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    found = service(capsys, "status", "--root", root, code=ExitCode.NOT_FOUND)
    assert (*found["units"].values(), found["enabled"], found["active"]) == ("missing", False, "unknown")
    assert main(["service", "status", "--root", str(root), "--home", "/srv/my p2p"]) == ExitCode.NOT_FOUND
    shown = capsys.readouterr()
    assert shown.out.startswith("missing ")
    assert shown.err == f"Not installed. Next: fastn-p2p service install --root={root} '--home=/srv/my p2p'\n"
    service(capsys, "install", "--root", root, "--home", "/srv/my p2p")
    assert main(["service", "status", "--root", str(root), "--home", "/srv/my p2p"]) == ExitCode.OK


def test_one_missing_file_of_several_is_reported(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    service(capsys, "install", "--system", "--root", root)
    (root / "etc/sysusers.d/fastn-p2p.conf").unlink()
    assert main(["service", "status", "--system", "--root", str(root)]) == ExitCode.NOT_FOUND
    assert "fastn-p2p service install --system" in capsys.readouterr().err


def test_a_machine_without_systemd_is_told_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    error = service(capsys, "install", code=ExitCode.NOT_FOUND)["error"]
    assert "fastn-p2p daemon" in error["message"]
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("prefix", ["/home/ann/.venv", "/root/p2p"])
def test_the_system_does_not_start_what_its_unit_hides(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path, prefix: str
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    error = service(capsys, "install", "--system", "--root", root, code=ExitCode.USAGE)["error"]
    assert "/opt/fastn-p2p" in error["message"]


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("/opt/a-b/c", "/opt/a-b/c"), ("/a b", '"/a b"'), ("50%", "50%%"), ("$HOME", "$$HOME"), ('"\\', '"\\"\\\\"')],
)
def test_words_of_a_command_line_are_quoted(word: str, quoted: str) -> None:
    assert quote(word) == quoted


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("scope", SCOPES)
def test_systemd_accepts_what_is_written(capsys: pytest.CaptureFixture[str], root: Path, scope: str) -> None:
    service(capsys, "install", f"--{scope}", "--root", root)
    (unit,) = root.rglob("*.service")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--{scope}", str(unit)]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd cannot verify units here: {done.stderr}")
    about_it = [line for line in done.stderr.splitlines() if re.search(r"fastn-p2p.*\.service", line)]
    assert about_it == []
