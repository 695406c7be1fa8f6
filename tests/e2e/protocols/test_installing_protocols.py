"""Packages come, change and go in the daemon's environment while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_client.errors import ProtocolNotFound
from tests.support.daemons import Daemon

ROOT = Path(__file__).resolve().parents[3]
PATHS = [sysconfig.get_path("purelib"), *(str(ROOT / folder) for folder in ("", "actors", "client", "supervisor"))]


class Environment:
    """A virtual environment of its own, which has what this one has, and a daemon in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        venv.create(directory / "venv", symlinks=True)
        self.python = str(directory / "venv/bin/python")
        (self.site_packages / "what-the-tests-have.pth").write_text("\n".join(PATHS) + "\n")
        # No index and no build isolation: what a build needs is here already.
        self.env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1"}
        self.daemon = Daemon(directory / "home", directory / "hosts")
        self.daemon.command = (self.python, "-m", "fastn_p2p", "daemon")

    @property
    def site_packages(self) -> Path:
        return next((self.directory / "venv/lib").iterdir()) / "site-packages"

    def pip(self, *arguments: str) -> None:
        done = subprocess.run(
            [self.python, "-m", "pip", "-q", *arguments], env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def package(self, name: str, answer: str, *, version: str = "1", folder: str = "") -> Path:
        """A package whose protocol of that name answers so."""
        module = name.lower()
        directory = self.directory / f"{module}-{version}"
        source = directory / folder / module
        source.mkdir(parents=True, exist_ok=True)
        (source / "__init__.py").write_text(
            "from fastn_p2p_client.protocol import Protocol, request\n"
            f"from {module}.words import ANSWER\n"
            f"class {name}(Protocol):\n"
            f'    """Answers {answer}."""\n'
            "    public = True\n"
            "    @request\n"
            "    async def answer(self, _: None) -> str: return ANSWER\n"
        )
        (source / "words.py").write_text(f"ANSWER = {answer!r}\n")
        packages = f'[tool.setuptools]\npackages = ["{module}"]\n' + (
            f'package-dir = {{"" = "{folder}"}}\n' if folder else ""
        )
        (directory / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "{module}"\nversion = "{version}"\n'
            f'[project.entry-points."fastn_p2p.protocols"]\n{name} = "{module}:{name}"\n{packages}'
        )
        return directory

    def cli(self, *arguments: str, code: int = 0) -> str:
        done = self.daemon.cli(*arguments)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def installed(self) -> dict[str, str]:
        """Protocol → description, as the daemon lists them."""
        return {
            each["name"]: each["description"] for each in json.loads(self.cli("protocols", "--json").split("\n")[0])
        }

    def answer(self, protocol: str, instance: str = "default") -> object:
        with self.daemon.client() as client:
            alice = next(each.id52 for each in self.daemon.status().identities if each.name == "alice")
            return client.call("alice", alice, protocol, instance)


@pytest.fixture(scope="module")
def around() -> Iterator[Environment]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        environment = Environment(Path(name))
        try:
            environment.daemon.start()
            environment.daemon.identity("alice")
            yield environment
        finally:
            environment.daemon.clean_up()


@pytest.mark.parametrize(
    ("name", "options", "folder"),
    [
        ("Plain", (), ""),
        ("Mapped", ("-e",), ""),  # a finder
        ("Pathed", ("-e",), "src"),  # a directory in a .pth file
    ],
)
def test_a_package_is_installed_replaced_and_removed(
    around: Environment, name: str, options: tuple[str, ...], folder: str
) -> None:
    pid = around.daemon.wait_actor("identity-alice")
    assert name not in around.installed()
    around.cli("add-protocol", "alice", "--protocol", name, code=7)

    around.pip("install", *options, str(around.package(name, "one", folder=folder)))
    assert around.installed()[name] == "Answers one."
    around.cli("add-protocol", "alice", "--protocol", name)
    assert around.answer(name) == "one"

    around.pip("install", *options, str(around.package(name, "two, later", version="2", folder=folder)))
    assert around.installed()[name] == "Answers two, later."
    assert around.answer(name) == "one"
    around.cli("reload", "alice", name)
    assert around.answer(name) == "two, later"
    around.cli("add-protocol", "alice", "--protocol", name, "--alias", "other")
    assert around.answer(name, "other") == "two, later"

    around.pip("uninstall", "-y", name.lower())
    assert name not in around.installed()
    around.cli("add-protocol", "alice", "--protocol", name, "--alias", "third", code=7)
    assert around.answer(name) == "two, later"
    assert around.daemon.pid("identity-alice") == pid
    for instance in ("default", "other"):
        around.cli("remove-protocol", "alice", "--protocol", name, "--alias", instance)
    with pytest.raises(ProtocolNotFound):
        around.answer(name)


def test_a_process_that_starts_later_finds_what_was_installed(around: Environment) -> None:
    """It is a fork of a server that knows nothing of it."""
    around.pip("install", "-e", str(around.package("Fresh", "fresh")))
    around.cli("create-identity", "bob")
    around.cli("identity-online", "bob")
    around.cli("add-protocol", "bob", "--protocol", "Fresh")
    around.cli("identity-offline", "bob")
    around.cli("identity-online", "bob")
    states = [each.state for identity in around.daemon.status().identities for each in identity.bindings]
    assert set(states) == {"serving"}
    around.cli("delete-identity", "bob", "--yes")


def test_code_that_is_edited_in_place_is_reloaded(around: Environment) -> None:
    source = around.package("Edited", "before")
    around.pip("install", "-e", str(source))
    around.cli("add-protocol", "alice", "--protocol", "Edited")
    assert around.answer("Edited") == "before"
    (source / "edited/words.py").write_text("ANSWER = 'after it was edited'\n")
    around.cli("reload", "alice", "Edited")
    assert around.answer("Edited") == "after it was edited"
    (source / "edited/words.py").write_text("this is no Python\n")
    around.cli("reload", "alice", "Edited", code=12)
    assert around.answer("Edited") == "after it was edited"


def test_the_commands_that_new_protocol_prints_are_all_it_takes(around: Environment) -> None:
    """Literally: with the daemon's interpreter, which is not the one that runs the command."""
    directory = around.directory / "a place"
    done = around.daemon.cli("new-protocol", "GuestBook", "--dir", str(directory))
    assert done.stdout == f"{directory}\n"
    commands = "\n".join(line for line in done.stderr.splitlines() if line.startswith("  "))
    assert around.python in commands
    env = {**around.daemon.env, **around.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["FASTN_HOME"] = str(around.daemon.home.path)
    ran = subprocess.run(["bash", "-e", "-c", commands], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with around.daemon.client() as client:
        alice = next(each.id52 for each in around.daemon.status().identities if each.name == "alice")
        assert client.call("alice", alice, "GuestBook", request={"text": "hello"}) == {"number": 1}
