"""Output of commands with ``--json`` while a daemon runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import IdentityInfo, PeerInfo
from tests.support.daemons import Daemon
from tests.support.two_daemons import TwoDaemons

ID52 = "88mnvkru1v9iifeltebr9eoputurna0bag7i4a5goi68eal4alpg"


def result(daemon: Daemon, *arguments: str, code: int = 0) -> Any:
    """Return the only value on standard output, and check that the command wrote nothing else."""
    done = daemon.cli(*arguments, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def identity(value: Any) -> IdentityInfo:
    return msgspec.convert(value, IdentityInfo)


def peer(value: Any) -> PeerInfo:
    return msgspec.convert(value, PeerInfo)


def test_the_life_of_an_identity(daemons: TwoDaemons) -> None:
    one = daemons.one
    binding = {"identity": "carol", "protocol": "Echo", "instance": "default"}
    chosen = ("carol", "Echo")
    created = identity(result(one, "create-identity", "carol"))
    assert (created.name, created.online) == ("carol", False)
    assert result(one, "add-protocol", "carol", "--protocol", "Echo") == binding
    assert identity(result(one, "identity", "online", "carol")).online
    assert result(one, "protocol", "check", *chosen) == {**binding, "state": "serving"}
    assert result(one, "protocol", "reload", *chosen) == {**binding, "state": "serving"}
    assert result(one, "protocol", "stop", *chosen) == {**binding, "state": "stopped"}
    assert result(one, "protocol", "start", *chosen) == {**binding, "state": "serving"}
    changed = result(one, "protocol", "set", "carol", "--protocol", "Echo", "--allow", "everyone")
    assert changed == {**binding, "state": "serving"}
    assert result(one, "remove-protocol", "carol", "--protocol", "Echo", "--yes") == binding
    assert not identity(result(one, "identity", "offline", "carol")).online
    assert result(one, "identity", "delete", "carol", "--yes") == {"name": "carol"}


def test_the_address_book(daemons: TwoDaemons) -> None:
    one = daemons.one
    added = result(one, "peer", "add", ID52, "--name", "dora")
    assert peer(added).id52 == ID52
    assert (added["renamed_from"], added["let_in_to"]) == ("", [])
    assert peer(result(one, "peer", "rename", "dora", "dana")).name == "dana"
    assert result(one, "peer", "group", "create", "friends", "dana") == {"group": "friends", "added": ["dana"]}
    assert result(one, "peer", "group", "remove", "friends", "dana") == {"group": "friends", "removed": ["dana"]}
    assert result(one, "peer", "group", "add", "friends", "dana") == {"group": "friends", "added": ["dana"]}
    assert result(one, "peer", "remove", "dana") == {"name": "dana", "groups": ["friends"]}
    assert result(one, "peer", "group", "delete", "friends") == {"group": "friends"}
    assert result(one, "peer", "block", ID52) == {"peer": ID52}
    assert result(one, "peer", "unblock", ID52) == {"peer": ID52}
    assert peer(result(one, "peer", "accept", ID52, "--name", "dora")).name == "dora"
    assert result(one, "peer", "remove", "dora") == {"name": "dora", "groups": []}


def test_settings_and_protocols(daemons: TwoDaemons, tmp_path: Path) -> None:
    one = daemons.one
    path = Path(result(one, "config", "path"))
    changed = result(one, "config", "set", "limits.memory", "700")
    assert (changed["key"], changed["value"]) == ("limits.memory", 700)
    path.unlink()
    written = result(one, "protocol", "new", "PhotoBox", "--dir", str(tmp_path / "box"))
    assert (written["directory"], written["protocol"]) == (str(tmp_path / "box"), "PhotoBox")
    assert (tmp_path / "box").is_dir()


def test_errors(daemons: TwoDaemons) -> None:
    one = daemons.one
    error = result(one, "call", "nobody", "Echo", "--data", "{}", code=ExitCode.PEER)["error"]
    assert (error["code"], error["exit"], error["fields"]) == ("peer-unknown", 4, {"peer": "nobody"})
    error = result(one, "call", daemons.bob, "Echo", "--data", '{"message": ""}', code=ExitCode.APPLICATION)["error"]
    assert (error["code"], error["fields"]["kind"]) == ("application-error", "MessageEmpty")
    error = result(one, "mail", "list", code=ExitCode.NOT_FOUND)["error"]
    assert error["code"] == "binding-not-found"
    error = result(one, "files", "reject", "0" * 16, code=ExitCode.NOT_FOUND)["error"]
    assert error["exit"] == ExitCode.NOT_FOUND
