"""A third party's protocol, from its package to its end: the one of ``examples/``, and what ``new-protocol`` writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.errors import ProtocolNotFound
from fastn_p2p_client.ipc.messages import RemoveProtocol
from tests.support.daemons import CLI, Daemon
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding, binding_of

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/pinboard"


def install(source: Path, target: Path) -> None:
    """Install a distribution into a directory of its own, as ``pip install`` does."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run([*pip, *options, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def copy_of_example(directory: Path) -> Path:
    """Builds write into the tree that they build."""
    copy = directory / "pinboard"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "pinboard_protocol.py"):
        (copy / name).write_bytes((EXAMPLE / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """With both packages installed, and one that is broken."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        packages = directory / "packages"
        made = subprocess.run(
            [*CLI, "new-protocol", "GuestBook", "--dir", str(directory / "written")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert made.stdout == f"{directory / 'written'}\n"
        install(directory / "written", packages)
        install(copy_of_example(directory), packages)
        env = install_protocols(packages, Broken="no_such_module:Broken")
        daemon = Daemon(directory / "home", directory / "hosts", **env)
        try:
            daemon.start()
            for each in ("alice", "bob"):
                daemon.identity(each, echo=False)
            yield daemon
        finally:
            daemon.clean_up()


def key_of(daemon: Daemon, name: str) -> str:
    return next(each.id52 for each in daemon.status().identities if each.name == name)


def call(daemon: Daemon, request: Any, instance: str = "default", protocol: str = "Pinboard") -> Any:
    with daemon.client() as client:
        return client.call("bob", key_of(daemon, "alice"), protocol, instance, request)


def texts(daemon: Daemon, instance: str = "default") -> list[str]:
    return [note["text"] for note in call(daemon, {"type": "List"}, instance)["notes"]]


def workspace(daemon: Daemon, instance: str, protocol: str = "Pinboard") -> Path:
    return daemon.home.identities / "alice/protocols" / protocol / instance


def edit(daemon: Daemon, instance: str, **config: object) -> None:
    """Write the config of a binding to its file, as an editor does."""
    file = workspace(daemon, instance) / "config.json"
    content = json.loads(file.read_bytes())
    content["config"] = config
    file.write_text(json.dumps(content))


def test_a_new_protocol_passes_its_tests(daemon: Daemon) -> None:
    tests = daemon.home.path.parent / "written/tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=daemon.env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_new_protocol_is_served(daemon: Daemon) -> None:
    add_binding(daemon, "alice", "GuestBook", "default", "everyone", max_length=20)
    assert call(daemon, {"text": "hello"}, protocol="GuestBook") == {"number": 1}
    done = daemon.cli("stream", key_of(daemon, "alice"), "GuestBook", "--as", "bob", input="")
    assert done.stdout.endswith(": hello\n"), done.stderr


def test_an_installed_protocol_is_listed(daemon: Daemon) -> None:
    listed = {each["name"]: each for each in json.loads(daemon.cli("protocols", "--json").stdout)}
    board = listed["Pinboard"]
    assert (board["distribution"], board["version"]) == ("pinboard-protocol", "0.1.0")
    assert (board["public"], board["requests"], board["streams"], board["problem"]) == (False, True, True, "")
    assert board["description"].startswith("A pinboard: peers pin notes")
    (config,) = board["config_schema"]["$defs"].values()
    assert list(config["properties"]) == ["max_notes", "max_length", "export"]
    assert "no_such_module" in listed["Broken"]["problem"]
    assert listed["Echo"]["distribution"] == "fastn-p2p"

    table = daemon.cli("protocols").stdout
    assert "Broken  BROKEN: cannot be loaded: ModuleNotFoundError" in table
    assert re.search(r"^ +max_notes +integer ≥ 1, ≤ 100000 +default 1000 +notes on the board$", table, re.MULTILINE)


@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_a_config_that_does_not_fit_is_refused_before_anything_is_written(daemon: Daemon, online: bool) -> None:
    name = "alice" if online else daemon.identity("offline", online=False, echo=False) and "offline"
    for config, words in (
        ({"max_notes": 0}, "$.max_notes"),
        ({"notes": 1}, "notes"),
        ({"export": "/no/such/directory"}, "$.export"),
    ):
        done = daemon.cli("add-protocol", name, "--protocol", "Pinboard", "--config", json.dumps(config), "--yes")
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert not (daemon.home.identities / name / "protocols/Pinboard").exists()


def test_a_board_lives(daemon: Daemon) -> None:
    """Given, used, edited by hand, stopped, started, taken away."""
    export = daemon.home.path.parent / "export"
    export.mkdir()
    add_binding(daemon, "alice", "Pinboard", export=str(export))
    for text in ("milk", "bread", "salt"):
        call(daemon, {"type": "Pin", "text": text})
    assert texts(daemon) == ["milk", "bread", "salt"]

    edit(daemon, "default", max_notes="many")
    for command in ("check", "reload"):
        done = daemon.cli(command, "alice", "Pinboard")
        assert (done.returncode, done.stdout) == (2, "")
        assert "`$.max_notes`" in done.stderr
    assert texts(daemon) == ["milk", "bread", "salt"]  # with the config that it had

    edit(daemon, "default", max_notes=2, export=str(export))
    done = daemon.cli("check", "alice", "Pinboard")
    assert done.stderr == "The config of Pinboard (default) of alice is valid. State: serving.\n"
    assert texts(daemon) == ["milk", "bread", "salt"]
    done = daemon.cli("reload", "alice", "Pinboard")
    assert (done.returncode, done.stderr) == (
        0,
        "Reloaded Pinboard (default) of alice. State: serving.\n",
    )
    assert texts(daemon) == ["bread", "salt"]

    done = daemon.cli("stop", "alice", "Pinboard")
    assert (done.returncode, done.stderr.split("State: ")[1]) == (0, "stopped.\n")
    with pytest.raises(ProtocolNotFound):
        texts(daemon)
    daemon.stop()
    daemon.start()
    assert binding_of(daemon, "alice", "Pinboard").state == "stopped"
    assert "Pinboard (default): stopped" in daemon.shown_status()
    with pytest.raises(ProtocolNotFound):
        texts(daemon)
    assert daemon.cli("start", "alice", "Pinboard").returncode == 0
    assert texts(daemon) == ["bread", "salt"]

    with daemon.client() as client:
        client.control(RemoveProtocol("alice", "Pinboard", "default"))
    assert not workspace(daemon, "default").exists()
    kept = msgspec.json.decode((export / "alice-default.json").read_bytes())
    assert [note["text"] for note in kept] == ["bread", "salt"]


def test_a_board_of_an_identity_that_is_offline(daemon: Daemon) -> None:
    """A one-shot worker checks its config and runs its hook at the end."""
    export = daemon.home.path.parent / "export-offline"
    export.mkdir()
    add_binding(daemon, "alice", "Pinboard", "kitchen", export=str(export))
    call(daemon, {"type": "Pin", "text": "milk"}, "kitchen")
    assert daemon.cli("identity-offline", "alice").returncode == 0

    edit(daemon, "kitchen", max_notes=-1)
    done = daemon.cli("check", "alice", "Pinboard", "kitchen")
    assert (done.returncode, "`$.max_notes`" in done.stderr) == (2, True)
    edit(daemon, "kitchen", export=str(export))
    assert daemon.cli("check", "alice", "Pinboard", "kitchen").stderr.endswith("State: offline.\n")
    assert daemon.cli("stop", "alice", "Pinboard", "kitchen").stderr.endswith("State: stopped.\n")
    assert daemon.cli("start", "alice", "Pinboard", "kitchen").stderr.endswith("State: offline.\n")

    with daemon.client() as client:
        client.control(RemoveProtocol("alice", "Pinboard", "kitchen"))
    assert b"milk" in (export / "alice-kitchen.json").read_bytes()
    assert not workspace(daemon, "kitchen").exists()
    assert daemon.cli("identity-online", "alice").returncode == 0


def test_a_missing_protocol_is_reported(daemon: Daemon) -> None:
    for command in ("check", "reload", "start", "stop"):
        for arguments, words in (
            (("alice", "Pinboard", "none"), "has no Pinboard as 'none'"),
            (("nobody", "Pinboard"), "no identity 'nobody'"),
        ):
            done = daemon.cli(command, *arguments)
            assert (done.returncode, words in done.stderr) == (7, True), done.stderr
