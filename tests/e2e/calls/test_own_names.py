"""An identity of this daemon goes by its own name wherever a peer is named, unless a petname is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import AddPeer, RemovePeer, SetIdentityOnline
from fastn_p2p_client.mail.sync import MailClient
from tests.support.daemons import eventually
from tests.support.services import Service, echo
from tests.support.tunnels import exchange, forwarding
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDaemons]:
    """alice and carol are of one daemon."""
    root = tmp_path_factory.mktemp("shared")
    (root / "report.txt").write_text("report")
    with start_two_daemons() as made:
        made.one.identity("carol")
        add_binding(made.one, "alice", "Mail")
        add_binding(made.one, "alice", "Chat", "default", "everyone")
        for protocol, config in (("Mail", {}), ("Chat", {}), ("FileTransfer", {"root": str(root)}), ("Trial", {})):
            add_binding(made.one, "carol", protocol, "default", "everyone", **config)
        yield made


def test_calls_streams_and_programs(daemons: TwoDaemons) -> None:
    one = daemons.one
    done = one.cli("call", "carol", "Echo", "--as", "alice", "--data", '{"message": "hi"}')
    assert "hi" in done.stdout, done.stderr
    assert one.cli("stream", "carol", "Trial", "--as", "alice", "--data", "{}", input="x").stdout == "x"
    with one.client() as client:
        assert client.call("alice", "carol", "Trial", request={"do": "who"})["instance"] == "default"


def test_forward(daemons: TwoDaemons) -> None:
    service = Service(echo).start()
    add_binding(daemons.one, "carol", "Tunnel", "web", "everyone", target=service.address)
    try:
        with forwarding(daemons.one, "carol", "web", "--as", "alice", "--listen", "127.0.0.1:0") as forward:
            assert exchange(forward.address, b"hi") == b"hi"
    finally:
        service.stop()


def test_files_mail_and_chat(daemons: TwoDaemons, tmp_path: Path) -> None:
    one = daemons.one
    got = one.cli("files", "get", "carol", "report.txt", "--as", "alice", "--to", str(tmp_path))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "report.txt").read_text() == "report"
    sent = one.cli("mail", "send", "carol", "--as", "alice", "--subject", "own", input="x")
    assert sent.returncode == 0, sent.stderr
    with MailClient("carol", home=one.home) as carol:
        eventually(lambda: [each.subject for each in carol.list(wait=5).mails] == ["own"], "it has come")
    said = one.cli("chat", "carol", "--as", "alice", "--wait", "--timeout", "50", input="hello\n")
    assert said.returncode == 0, said.stderr


def test_a_petname_comes_first_and_a_name_that_is_offline_is_said_to_be_unknown(daemons: TwoDaemons) -> None:
    call = "call", "carol", "Trial", "--as", "alice", "--data", '{"do": "ask", "value": 1}'
    with daemons.one.client() as client:
        client.control(AddPeer(daemons.bob, "carol"))
        assert client.call("alice", "carol", "Trial", request={"do": "counts"}) == client.call(
            "alice", daemons.bob, "Trial", request={"do": "counts"}
        )
        client.control(RemovePeer("carol"))
        client.control(SetIdentityOnline("carol", False))
        done = daemons.one.cli(*call)
        assert (done.returncode, "has to be online" in done.stderr) == (ExitCode.PEER, True)
        client.control(SetIdentityOnline("carol", True))
