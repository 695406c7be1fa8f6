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
def environment() -> Iterator[Environment]:
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
    environment: Environment, name: str, options: tuple[str, ...], folder: str
) -> None:
    pid = environment.daemon.wait_actor("identity-alice")
    assert name not in environment.installed()
    environment.cli("add-protocol", "alice", "--protocol", name, code=7)

    environment.pip("install", *options, str(environment.package(name, "one", folder=folder)))
    assert environment.installed()[name] == "Answers one."
    environment.cli("add-protocol", "alice", "--protocol", name)
    assert environment.answer(name) == "one"

    environment.pip("install", *options, str(environment.package(name, "two, later", version="2", folder=folder)))
    assert environment.installed()[name] == "Answers two, later."
    assert environment.answer(name) == "one"
    environment.cli("reload", "alice", name)
    assert environment.answer(name) == "two, later"
    environment.cli("add-protocol", "alice", "--protocol", name, "--alias", "other")
    assert environment.answer(name, "other") == "two, later"

    environment.pip("uninstall", "-y", name.lower())
    assert name not in environment.installed()
    environment.cli("add-protocol", "alice", "--protocol", name, "--alias", "third", code=7)
    assert environment.answer(name) == "two, later"
    if not options:  # code in a directory of its own is outside of the sandbox of a process that has started
        assert environment.daemon.pid("identity-alice") == pid
    for instance in ("default", "other"):
        environment.cli("remove-protocol", "alice", "--protocol", name, "--alias", instance)
    with pytest.raises(ProtocolNotFound):
        environment.answer(name)


def test_a_process_that_starts_later_finds_what_was_installed(environment: Environment) -> None:
    """The process is forked from a server that started before the installation."""
    environment.pip("install", "-e", str(environment.package("Fresh", "fresh")))
    environment.cli("create-identity", "bob")
    environment.cli("identity-online", "bob")
    environment.cli("add-protocol", "bob", "--protocol", "Fresh")
    environment.cli("identity-offline", "bob")
    environment.cli("identity-online", "bob")
    states = [each.state for identity in environment.daemon.status().identities for each in identity.bindings]
    assert set(states) == {"serving"}
    environment.cli("delete-identity", "bob", "--yes")


def test_code_that_is_edited_in_place_is_reloaded(environment: Environment) -> None:
    source = environment.package("Edited", "before")
    environment.pip("install", "-e", str(source))
    environment.cli("add-protocol", "alice", "--protocol", "Edited")
    assert environment.answer("Edited") == "before"
    (source / "edited/words.py").write_text("ANSWER = 'after it was edited'\n")
    environment.cli("reload", "alice", "Edited")
    assert environment.answer("Edited") == "after it was edited"
    (source / "edited/words.py").write_text("this is no Python\n")
    environment.cli("reload", "alice", "Edited", code=12)
    assert environment.answer("Edited") == "after it was edited"


def test_the_commands_that_new_protocol_prints_are_all_it_takes(environment: Environment) -> None:
    """Literally: with the daemon's interpreter, which is not the one that runs the command."""
    directory = environment.directory / "a place"
    done = environment.daemon.cli("new-protocol", "GuestBook", "--dir", str(directory))
    assert done.stdout == f"{directory}\n"
    commands = "\n".join(line for line in done.stderr.splitlines() if line.startswith("  "))
    assert environment.python in commands
    env = {**environment.daemon.env, **environment.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["FASTN_HOME"] = str(environment.daemon.home.path)
    ran = subprocess.run(["bash", "-e", "-c", commands], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with environment.daemon.client() as client:
        alice = next(each.id52 for each in environment.daemon.status().identities if each.name == "alice")
        assert client.call("alice", alice, "GuestBook", request={"text": "hello"}) == {"number": 1}
