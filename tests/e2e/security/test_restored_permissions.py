"""A restored identity may do what it might do before, and so may bearers of its invitations. Nobody may do more."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p_client.errors import Denied, InvitationRefused, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.cheap_secrets import CHEAP_SECRETS
from tests.support.daemons import Daemon, eventually
from tests.support.escaping_protocol import DONE
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding

CLAIMS = "postgresql://alice@127.0.0.1:1/claims"
"""Store of claims of alice's Echo/claimed. There is no database."""


@dataclass
class Scene:
    """alice is at ``old``, and then at ``new``. She has invited bob, who is at ``two``, to Echo/work.

    Her Escaping may read ``outside``, which its config names, and ``extra``, which she has granted beyond that.
    """

    old: Daemon
    two: Daemon
    new: Daemon
    alice: str
    outside: Path
    extra: Path
    backup: Path
    open_ticket: str
    """Ticket of an invitation that nobody has redeemed."""

    def backup_command(self, daemon: Daemon, command: str, *options: str, code: int = 0) -> str:
        file = ("--passphrase-file", str(self.backup.with_name("passphrase")))
        done = daemon.cli("backup", command, str(self.backup), *options, *file)
        assert done.returncode == code, (done.stdout, done.stderr, daemon.report())
        return done.stdout if "--json" in options else done.stdout + done.stderr

    def call(self, instance: str) -> P2PError | None:
        """Call alice as bob. Return the error, or None after a reply."""
        with self.two.client() as client:
            try:
                client.call("bob", self.alice, "Echo", instance, {"message": "hi"}, timeout=30, retry=True)
            except P2PError as error:
                return error
        return None


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        folder = Path(name)
        env = install_protocols(folder / "packages", Escaping="tests.support.escaping_protocol:Escaping")
        env["PYTHONPATH"] += f":{CHEAP_SECRETS}"
        made = [Daemon(folder / each, folder / "hosts", **env) for each in ("old", "two", "new")]
        old, two, new = made
        outside, extra, shared = (folder / each for each in ("outside", "extra", "shared"))
        for directory in (outside, extra, shared):
            directory.mkdir()
        (folder / "passphrase").write_text("correct horse\n")
        try:
            for daemon in made:
                daemon.launch()
            for daemon in made:
                assert daemon.wait_ready(), daemon.report()
            alice = old.identity("alice")
            two.identity("bob")
            add_binding(old, "alice", "Echo", "work", "peers")
            add_binding(old, "alice", "Echo", "private", "peers")
            add_binding(old, "alice", "Escaping", permissions=[f"read {outside}"])
            add_binding(old, "alice", "FileTransfer", root=str(shared))
            granted = old.cli("set-protocol", "alice", "--protocol", "Escaping", "--grant", f"read {extra}")
            assert granted.returncode == 0, granted.stderr
            with old.client() as client, two.client() as bob:
                client.protocols.add("alice", "Echo", "claimed", claims=CLAIMS)
                used = client.control(m.CreateInvitation("alice", ("Echo/work",))).ticket
                bob.control(m.AddPeer(used, "ally", identity="bob"), timeout=60)
                unused = client.control(m.CreateInvitation("alice", ("Echo/work",))).ticket
            scene = Scene(old, two, new, alice, outside, extra, folder / "alice.age", unused)
            assert scene.call("work") is None
            assert isinstance(scene.call("private"), Denied)
            scene.backup_command(old, "create")
            yield scene
        finally:
            for daemon in made:
                daemon.clean_up()


def test_status_counts_invitations_that_can_be_redeemed(scene: Scene) -> None:
    assert scene.old.status().invitations == 1
    assert json.loads(scene.old.cli("status", "--json").stdout)["invitations"] == 1
    assert "1 invitation open: `fastn-p2p invite list`" in scene.old.cli("status").stdout


def test_a_backup_shows_what_code_and_bearers_may(scene: Scene) -> None:
    shown = json.loads(scene.backup_command(scene.new, "show", "--json"))
    (alice,) = shown["identities"]
    permissions = {each["protocol"]: each["permissions"] for each in alice["protocols"]}
    assert permissions["Escaping"] == [f"read {scene.outside}", f"read {scene.extra}"]
    assert sorted(len(each["bearers"]) for each in shown["invitations"]) == [0, 1]
    text = scene.backup_command(scene.new, "show")
    assert f"alice/Escaping/default\tread {scene.outside}" in text
    assert "1 peer, 0 groups, 0 blocked, 1 bearer of invitations" in text


def test_a_restored_identity_has_its_permissions_and_its_bearers_again(scene: Scene) -> None:
    scene.old.stop()
    said = scene.backup_command(scene.new, "restore")
    assert f"The code of alice/Escaping/default may again: read {scene.outside}, read {scene.extra}" in said
    assert "open invitations of alice that are not restored, and cannot be redeemed here: 1" in said

    def states() -> set[str]:
        return {each.state for identity in scene.new.status().identities for each in identity.bindings}

    eventually(lambda: states() == {"serving"}, "every binding serves")
    bindings = [each for identity in scene.new.status().identities for each in identity.bindings]
    assert [each.claims for each in bindings if each.claims] == [CLAIMS]
    with scene.new.client() as client:
        (claimed,) = [each for each in client.protocols.access("alice") if each.instance == "claimed"]
        assert claimed.permissions == ("connect 127.0.0.1:1",), "it may reach its store of claims again"
    for place in (scene.outside, scene.extra):
        with scene.new.client() as client:
            assert client.call("alice", scene.alice, "Escaping", request={"do": "list", "path": str(place)}) == DONE
    eventually(lambda: scene.call("work") is None, "bob may do what the invitation has let him")
    assert isinstance(scene.call("private"), Denied), "he is still no peer like others"
    with scene.new.client() as client:
        (peer,) = client.control(m.ListPeers()).peers
        assert peer.invited
    assert "invitation:" in scene.new.cli("access", "alice").stdout
    with scene.two.client() as client, pytest.raises(InvitationRefused) as refused:
        client.control(m.AddPeer(scene.open_ticket, "again", identity="bob"), timeout=60)
    assert refused.value.reason == "unknown"
    assert scene.new.status().invitations == 0


def test_a_repeated_restore_makes_no_bearer_a_peer(scene: Scene) -> None:
    """The address book here counts, not the one in the backup."""
    scene.backup_command(scene.new, "restore")
    assert isinstance(scene.call("private"), Denied)
    with scene.new.client() as client:
        client.control(m.AcceptPeer("bob", "bob", ()))
    eventually(lambda: scene.call("private") is None, "accepted")
    scene.backup_command(scene.new, "restore")
    assert scene.call("private") is None
