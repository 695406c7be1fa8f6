"""The README's ways to install, each from a checkout into a fresh home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.run_pages import INSTALLATION, ROOT, block

NOT_COPIED = (".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "node_modules", ".*_cache", ".hypothesis")


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of pipx and uv."""
    directory = tmp_path_factory.mktemp("installers")
    venv.create(directory)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin/python")]
    pip += ["-q", "--retries", "1", "--timeout", "15", "install", "--no-compile", "--require-hashes"]
    pip += ["-r", str(ROOT / "requirements" / "installers.txt")]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if "no matching distribution" in done.stderr.lower():
        pytest.skip(f"no package registry can be reached: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return directory / "bin"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy: a build writes into the tree that it builds."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return copy


@pytest.mark.parametrize("marker", INSTALLATION)
def test_one_line_of_the_readme_installs_the_command(
    tmp_path: Path, checkout: Path, installers: Path, marker: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FASTN_", "XDG_", "PYTHON"))}
    env = kept | {"HOME": str(home), "PATH": f"{installers}:{os.environ['PATH']}", "FASTN_NETWORK": "local"}
    env["PIP_NO_COMPILE"] = "1"  # an interpreter compiles what it imports, and most of this is never imported
    script = "\n".join([block(marker), block("run: path"), "command -v fastn-p2p", "fastn-p2p protocols"])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=env, cwd=checkout, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{home}/.local/bin/fastn-p2p\n" in f"\n{done.stdout}"
    for protocol in ("Chat", "Echo", "FileTransfer", "Mail", "Tunnel"):
        assert f"\n{protocol}  " in f"\n{done.stdout}"
    assert "BROKEN" not in done.stdout
    assert list(home.rglob("share/man/man1/fastn-p2p-mail.1")), "man finds no page"


def test_images_are_built_from_the_packages_and_nothing_else(tmp_path: Path) -> None:
    """``.dockerignore`` lets through what both distributions need, and no secret that lies in the checkout."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    assert not any(each.startswith(("deploy", ".", "docs", "tests")) for each in allowed)
    context = tmp_path / "context"
    context.mkdir()
    for each in allowed:
        if (ROOT / each).is_dir():
            shutil.copytree(ROOT / each, context / each, ignore=shutil.ignore_patterns(*NOT_COPIED))
        else:
            shutil.copy(ROOT / each, context)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--wheel-dir", "wheels"]
    done = subprocess.run(
        [*pip, "./client", "."], cwd=context, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    packed = {name for wheel in (context / "wheels").iterdir() for name in zipfile.ZipFile(wheel).namelist()}
    folders = ("client/fastn_p2p_client", "actors/fastn_p2p_actors", "supervisor/fastn_p2p_supervisor", "fastn_p2p")
    sources = {
        file.relative_to((ROOT / folder).parent).as_posix()
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
    }
    assert sources - packed == set()
    assert any(name.endswith("man1/fastn-p2p.1") for name in packed)
    assert (context / "requirements/runtime.txt").exists()
