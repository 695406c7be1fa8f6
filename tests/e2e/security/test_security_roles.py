"""Permissions of roles: every mailbox rejects a forbidden message with a typed error, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest

from fastn_p2p_actors.identity import messages as identity
from fastn_p2p_actors.network import admin_messages as network
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_actors.vault.access_policy import TABLE, VaultState
from fastn_p2p_actors.vault.owner_messages import OwnerRequest
from fastn_p2p_client.errors import Forbidden, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon, eventually
from tests.support.protocols import install_protocols
from tests.support.raw_connections import Keys, Raw, hello, unharmed
from tests.support.two_daemons import add_binding
from tests.support.vault_process import running_vault, vault_requests

NO_GRANT: Final = bytes(16)
EVERY_VAULT_MESSAGE: Final = [
    vault.CreateKey("mallory"),
    vault.DeleteKey("alice"),
    vault.ListKeys(),
    vault.RevokeKey("alice"),
    vault.ListRevokedKeys(),
    vault.AdoptKeys(b"token", (("alice", "alice"),)),
    vault.RotateTransportKey(),
    vault.GetEndpoint(),
    vault.GetLockState(),
    vault.GetTransport(),
    vault.SignDelegation("alice"),
    vault.SignRecord("alice", (), ("192.0.2.1:1",)),
    vault.SignPacket("alice", (), ("192.0.2.1:1",)),
    vault.SignBatch((vault.SignDelegation("alice"),)),
    vault.SignInvitation("alice", 2_000_000_000, 1, ("Echo/default",), b"", bytes(16)),
    vault.EnrolReplica("alice", bytes(32), "mallory"),
    vault.EndReplica("alice", "mallory"),
    vault.SignReplica("alice", bytes(32)),
    vault.PromoteHome("alice", "Mail", "default"),
    vault.ClaimHome("alice", "Mail", "default", bytes(32)),
    vault.AdoptEnrolled("alice", "mallory"),
    vault.NoteOwner("alice", bytes(64)),
    vault.ListEnrolled("alice"),
    vault.RecordEvent("record-signed", {"identity": "alice"}),
]
MANAGING: Final = [
    network.CreateTicket("alice"),
    network.SavePeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "mallory"),
    network.DeletePeer("carol"),
    network.GetPeers(),
    network.GetNetworkReport(),
    network.MeasureRoundTrip("alice", "carol", 100),
    network.TracePeer("alice", "carol", "", "", 100),
    network.GetPendingPeers(-1, 0),
    network.SetBlocked("carol", True),
    network.GetBlocked(),
    network.SetGroup("friends", True),
    network.SetMembers("friends", ("mallory",), ()),
    network.GetGroups(),
    network.EvaluateAccess((("peers",),)),
    network.MakeInvitation("alice", ("Echo/default",), 1, 3600, ""),
    network.GetInvitations(),
    network.EndInvitation("zzzzzzzz", True),
    network.RemoveInvited("alice"),
    network.RestorePeer("mallory", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "", ()),
    network.RestoreRevocation(b""),
    network.PrepareRestart(),
    network.SetWorkerBindings(()),
    network.RefreshReplicas("alice", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"),
    network.RestoreReplicas("alice", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", []),
    network.KeepJoined("alice", "", ""),
    network.EndJoined("alice"),
    network.GetReplicas(),
]
COMMANDS: Final = [
    m.CreateIdentity("mallory"),
    m.DeleteIdentity("alice"),
    m.ListIdentities(),
    m.SetIdentityOnline("alice", False),
    m.AddProtocol("alice", "Echo", "another"),
    m.RemoveProtocol("alice", "Echo", "default"),
    m.GetStatus(),
    m.GetTicket("alice"),
    m.AddPeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "mallory"),
    m.ListPeers(),
    m.RemovePeer("carol"),
    m.CreateInvitation("alice", ("Echo",)),
    m.ListInvitations(),
    m.RevokeInvitation("zzzzzzzz"),
    m.PingPeer("alice", "carol", 100),
    m.ExplainPeer("alice", "carol", "", "", 100),
]
DATA: Final = [
    m.Call("alice", "carol", "Echo", "default", 1000),
    m.Reply(),
    m.ApplicationErrorReply("kind"),
    m.RegisterIdentity("alice", NO_GRANT),
    m.RegisterBinding("alice", "Echo", "default", ("everyone",), NO_GRANT),
    m.UnregisterBinding("alice", "Echo", "default"),
    m.UnregisterIdentity("alice"),
    m.WaitForPeer("alice", "carol", 1000),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """alice and bob are online with Echo, Trial and Hostile; carol is in the address book.

    No process has a sandbox: roles must hold where the kernel has none. ``test_sandbox`` attacks from inside of one.
    """
    folder = tmp_path_factory.mktemp("roles")
    env = install_protocols(folder / "packages", Hostile="tests.fuzz.hostile:Hostile")
    daemon = Daemon(folder / "home", folder / "hosts", FASTN_SANDBOX="off", **env).start()
    for name in ("alice", "bob"):
        daemon.identity(name, echo=False)
        for protocol in ("Echo", "Trial", "Hostile"):
            add_binding(daemon, name, protocol)
    with daemon.client() as client:
        client.control(m.AddPeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "carol"))
    yield daemon
    daemon.clean_up()


def state_of(daemon: Daemon) -> object:
    """Return the state that a rejected request must not change."""
    status = daemon.status()
    return (
        [
            (each.name, each.online, [(b.protocol, b.instance, b.access, b.state) for b in each.bindings])
            for each in status.identities
        ],
        [(each.name, each.id52) for each in status.peers],
        sorted(
            path.name
            for path in daemon.home.path.rglob("*")
            if path.suffix in (".key", ".json") and path.name != "processes.json"
        ),
    )


@pytest.fixture
def unchanged(shared: Daemon) -> Iterator[Daemon]:
    before = state_of(shared)
    with unharmed(shared):
        yield shared
    assert state_of(shared) == before


def attack(daemon: Daemon, do: str, data: bytes = b"") -> Any:
    """Run an attack in bob's process. Return its results."""
    with daemon.client() as client:
        keys = {each.name: each.id52 for each in daemon.status().identities}
        return client.call("alice", keys["bob"], "Hostile", request={"do": do, "data": data}, timeout=60)


# ── the vault ────────────────────────────────────────────────────────────────────────────────────


def test_protocol_code_cannot_ask_the_vault(unchanged: Daemon) -> None:
    """Not without keys, not with keys of its own: its process has the same user as the vault's."""
    assert attack(unchanged, "vault") == [None, None, None, None]


def test_protocol_code_is_not_the_vaults_owner(unchanged: Daemon) -> None:
    """Neither in its own process nor in one that it has started and left."""
    own, orphan = attack(unchanged, "vault owner")
    assert own == "forbidden"
    assert orphan in ("forbidden", "")  # the supervisor may have killed it first


async def test_vault_answers_each_role_what_is_in_its_table_and_forbids_the_rest(tmp_path: Path) -> None:
    """Every message from every role over the real socket, and from keys that no role has, with the right server key."""

    with running_vault(tmp_path / "home") as running:
        async with vault_requests(running, "gateway") as gateway, vault_requests(running, "network") as net:
            created = await gateway(vault.CreateKey("alice"))
            for role, ask in (("gateway", gateway), ("network", net)):
                for message in EVERY_VAULT_MESSAGE:
                    if role not in TABLE[type(message)][VaultState.OPEN]:
                        with pytest.raises(Forbidden):
                            await ask(message)
            assert (await gateway(vault.ListKeys())).identities == (created,)
        keys = Keys.made_up(running.access["network"].server_public)
        for stranger in (keys, None):
            with Raw(running.home.mailbox("vault"), stranger) as raw:
                assert not raw.send(b"1", m.encode(vault.ListKeys()), b"", timeout=0.3)
        assert running.process.poll() is None
    assert {type(message) for message in EVERY_VAULT_MESSAGE} == TABLE.keys() - {m.Cancel, *get_args(OwnerRequest)}


# ── the network ──────────────────────────────────────────────────────────────────────────────────


def test_ordinary_program_cannot_manage_the_network(unchanged: Daemon) -> None:
    with Raw(unchanged.home.mailbox("network")) as raw:
        for message in MANAGING:
            assert raw.request(message) == "forbidden", message
        for grant in (b"", NO_GRANT, bytes(1000)):
            assert raw.request(network.AuthenticateGateway(grant)) == "forbidden"
        for message in MANAGING:
            assert raw.request(message) == "forbidden", message


def test_ordinary_program_cannot_act_as_an_identity(unchanged: Daemon) -> None:
    with Raw(unchanged.home.mailbox("network")) as raw:
        for name in ("alice", "nobody", "", "gateway:", "../alice", "a" * 10_000):
            assert raw.request(m.RegisterIdentity(name, NO_GRANT)) == "forbidden", name
            assert raw.request(m.RegisterBinding(name, "Echo", "default", ("everyone",), NO_GRANT)) == "forbidden", name
        for name, code in (("alice", "forbidden"), ("nobody", "identity-offline")):
            assert raw.request(m.UnregisterBinding(name, "Echo", "default")) == code
            assert raw.request(m.UnregisterIdentity(name)) == code


def test_an_identitys_grant_is_good_for_that_identity_alone(unchanged: Daemon) -> None:
    """Protocol code can read its own process's memory; what it finds there opens nothing else."""
    grant = attack(unchanged, "grant")
    assert isinstance(grant, bytes)
    assert len(grant) == 16
    with Raw(unchanged.home.mailbox("network")) as raw:
        assert raw.request(network.AuthenticateGateway(grant)) == "forbidden"
        for name in ("alice", "nobody", "gateway:", "bob2"):
            assert raw.request(m.RegisterIdentity(name, grant)) == "forbidden", name
            assert raw.request(m.RegisterBinding(name, "Echo", "default", ("everyone",), grant)) == "forbidden", name
        assert raw.request(m.UnregisterIdentity("bob")) == "forbidden"


def test_messages_of_other_conversations_are_no_messages_for_the_network(unchanged: Daemon) -> None:
    wrong = [*COMMANDS, *EVERY_VAULT_MESSAGE, m.Hello(1), identity.GetBindingStates(), m.Welcome(1, "", "", 1, 1)]
    with Raw(unchanged.home.mailbox("network")) as raw:
        for message in wrong:
            assert raw.request(message) == "bad-message", message
        for tag in (3, 99, 127, 600, -1, 2**63):
            assert raw.request(msgspec.msgpack.encode([tag])) == "bad-message"


def test_calls_of_others_can_be_neither_answered_nor_cancelled(unchanged: Daemon) -> None:
    """Ids are no secrets: they count up from one. The connection that brings a message decides."""
    keys = {each.name: each.id52 for each in unchanged.status().identities}
    with unchanged.client() as client, ThreadPoolExecutor(1) as pool, Raw(unchanged.home.mailbox("network")) as raw:
        order = {"do": "wait", "seconds": 0.7}
        call = pool.submit(client.call, "alice", keys["bob"], "Trial", "default", order)
        with unchanged.client() as other:
            eventually(
                lambda: other.call("alice", keys["bob"], "Trial", request={"do": "counts"})["begun"] >= 1, "it runs"
            )
        for number in range(400):
            for length in (1, 8):
                correlation = (number % 256 if length == 1 else number).to_bytes(length, "big")
                for message in (m.Reply(), m.ApplicationErrorReply("Forged"), m.ErrorReply("denied"), m.Cancel()):
                    assert raw.send(correlation, m.encode(message), b"\xa6forged")
        assert raw.request(network.GetNetworkReport()) == "forbidden"  # by now all of it has been looked at
        assert call.result(20) == "waited"


# ── the gateway ──────────────────────────────────────────────────────────────────────────────────


def test_gateway_takes_nothing_before_hello(unchanged: Daemon) -> None:
    with Raw(unchanged.home.control_socket) as raw:
        for message in COMMANDS:
            assert raw.request(message) == "bad-message", message
        assert raw.request(m.Hello(99, "from the future")) == "version-mismatch"
        assert raw.request(m.ListIdentities()) == "bad-message"
        hello(raw)
        assert raw.request(m.ListIdentities()) == 42


def test_messages_of_other_conversations_are_no_messages_for_the_gateway(unchanged: Daemon) -> None:
    wrong = [
        *DATA,
        *MANAGING,
        *EVERY_VAULT_MESSAGE,
        network.AuthenticateGateway(NO_GRANT),
        identity.GetBindingStates(),
        m.Ack(),
        m.ErrorReply("x"),
    ]
    with Raw(unchanged.home.control_socket) as raw:
        hello(raw)
        for message in wrong:
            assert raw.request(message) == "bad-message", message
        for tag in (3, 9, 22, 39, 400, -1, 2**63):
            assert raw.request(msgspec.msgpack.encode([tag])) == "bad-message"


# ── identities ───────────────────────────────────────────────────────────────────────────────────


def test_identitys_process_takes_changes_from_the_gateway_alone(unchanged: Daemon) -> None:
    with Raw(unchanged.home.mailbox("identity-alice")) as raw:
        assert raw.request(identity.Activate("Echo", "another", ("everyone",))) == "forbidden"
        assert raw.request(identity.Activate("Echo", "default", ("everyone",)), b'{"max_length": 1}') == "forbidden"
        assert raw.request(identity.Deactivate("Echo", "default")) == "forbidden"


def test_messages_of_other_conversations_are_no_messages_for_an_identity(unchanged: Daemon) -> None:
    with Raw(unchanged.home.mailbox("identity-alice")) as raw:
        for message in (*DATA, *COMMANDS, *MANAGING, *EVERY_VAULT_MESSAGE, m.Hello(1)):
            assert raw.request(message) == "bad-message", message


# ── the supervisor ───────────────────────────────────────────────────────────────────────────────


def test_protocol_code_cannot_give_the_supervisor_orders(unchanged: Daemon) -> None:
    assert attack(unchanged, "supervisor requests") == ["Forbidden"] * 4


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00",
        b"\x92\x04\xa4\xff\xfe\xfd\xfc",
        b"\x92\x02" + b"\x91" * 50_000 + b"\xc0",
        b"\xc1" * 65_536,
        b"\x92\x04\xdb\xff\xff\xff\xff",
    ],
    ids=["no message", "text that is none", "deep", "long", "announces too much"],
)
def test_garbage_on_the_control_channel_costs_the_process_that_sent_it_and_nothing_else(
    shared: Daemon, garbage: bytes
) -> None:
    """If the process crashes right afterwards, the supervisor starts it again."""
    with shared.client() as client:  # without what is remembered of the deaths that it has caused
        client.control(m.StopProtocol("bob", "Hostile", "default"))
        client.control(m.StartProtocol("bob", "Hostile", "default"))
    before = shared.pids()
    bob = before.pop("identity-bob")
    with suppress(P2PError):  # it is ended before it can answer
        attack(shared, "control channel garbage", garbage)
    shared.wait_actor("identity-bob", not_pid=bob)
    assert before.items() <= shared.pids().items()
    eventually(lambda: attack(shared, "pid"), "bob serves again")
