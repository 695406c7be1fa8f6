"""Commands on a terminal mention what waits for the owner: mails, file offers, and strangers who ask for access."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_client.errors import Denied
from tests.support.daemons import Daemon, eventually
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding


def shown(daemon: Daemon, *arguments: str) -> str:
    """Return what a command writes on a terminal."""
    with on_terminal(daemon.env, *arguments, columns=300) as terminal:
        assert terminal.ends() == 0
        return "\n".join(terminal.rows)


@pytest.fixture(scope="module")
def waiting(daemons: TwoDaemons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mail, a file offer and a stranger wait for bob."""
    directory = tmp_path_factory.mktemp("waiting")
    (directory / "inbox").mkdir()
    (directory / "report.txt").write_text("x")
    add_binding(daemons.two, "bob", "FileTransfer", "default", "everyone", inbox=str(directory / "inbox"))
    add_binding(daemons.two, "bob", "Mail", "default", "everyone")
    add_binding(daemons.one, "alice", "Mail")
    with daemons.one.client() as client, pytest.raises(Denied):
        client.call("alice", daemons.bob, "Echo", "private", {"message": "hi"})
    assert daemons.one.cli("mail", "send", daemons.bob, "--subject", "hi", input="hi").returncode == 0
    daemons.one.cli("files", "put", daemons.bob, str(directory / "report.txt"), "--timeout", "0")
    return directory


@pytest.mark.usefixtures("waiting")
def test_a_command_mentions_it_once_on_a_terminal(daemons: TwoDaemons) -> None:
    bob = daemons.two
    text = "bob has 1 file offer and 1 new mail. See: "
    eventually(lambda: text in shown(bob, "list-identities"), "everything has arrived")
    line = next(each for each in shown(bob, "list-identities").splitlines() if text in each)
    assert line.startswith("fastn-p2p: ")
    assert "asks for access" in line
    assert line.endswith("fastn-p2p peer pending, fastn-p2p files offers --as bob, fastn-p2p mail list --as bob")
    assert "fastn-p2p: " not in shown(bob, "list-identities", "--quiet") + shown(bob, "list-identities", "--json")
    assert bob.cli("list-identities").stderr == ""
    assert "new mail" not in shown(bob, "mail", "list")
    assert "file offer" not in shown(bob, "files", "offers")

    for actor in ("gateway", "network"):
        bob.wait_actor(actor, not_pid=bob.kill_actor(actor))
    eventually(lambda: text in shown(bob, "list-identities"), "the next processes know it, too")

    assert bob.cli("mail", "read", "1").returncode == 0
    eventually(lambda: "new mail" not in shown(bob, "list-identities"), "the mail is read")
    assert "bob has 1 file offer." in shown(bob, "list-identities")
