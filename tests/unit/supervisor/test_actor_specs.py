"""Specifications of the daemon's actors."""

import json
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_actors.runtime.grants import verify_grant
from fastn_p2p_actors.runtime.specs import ActorSpec, GatewaySettings, IdentitySettings, NetworkSettings, VaultSettings
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.actor_specs import ActorSpecs, DaemonConfig, online_identities

LOCAL = NetworkSection(mode="local")


def delivered(spec: ActorSpec) -> ActorSpec:
    """Return the spec as a child receives it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ActorSpec)


def test_every_actor_gets_settings_of_its_own_kind_that_fit_together(tmp_path: Path) -> None:
    specs = ActorSpecs(Home(tmp_path), LOCAL, 1234, DaemonConfig())
    vault_spec, network_spec, gateway_spec = map(delivered, specs.core)
    assert [spec.name for spec in specs.core] == ["vault", "network", "gateway"]
    assert {spec.heartbeat for spec in specs.core} == {1.0}

    vault = msgspec.convert(vault_spec.settings, VaultSettings)
    network = msgspec.convert(network_spec.settings, NetworkSettings)
    gateway = msgspec.convert(gateway_spec.settings, GatewaySettings)
    assert vault.roles == {gateway.vault.public: "gateway", network.vault.public: "network"}
    assert {gateway.vault.server_public, network.vault.server_public} == {vault.server_public}
    assert gateway.grant_key == network.grant_key
    assert (network.network.mode, gateway.network_mode, gateway.started_ms) == ("local", "local", 1234)

    alice_spec = delivered(specs.identity("alice"))
    alice = msgspec.convert(alice_spec.settings, IdentitySettings)
    assert (alice_spec.name, alice_spec.heartbeat) == ("identity-alice", 5.0)
    assert verify_grant(network.grant_key, "alice", alice.grant)


def test_an_identity_is_given_no_key(tmp_path: Path) -> None:
    settings = ActorSpecs(Home(tmp_path), LOCAL, 0, DaemonConfig()).identity("alice").settings
    assert settings.keys() == {"identity", "grant", "memory"}


def test_each_start_has_keys_of_its_own(tmp_path: Path) -> None:
    first, second = (ActorSpecs(Home(tmp_path), LOCAL, 0, DaemonConfig()) for _ in range(2))
    assert first.core[0].settings["server_secret"] != second.core[0].settings["server_secret"]
    assert first.identity("alice").settings["grant"] != second.identity("alice").settings["grant"]


def test_which_identities_are_online(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def identity(name: str, text: str) -> None:
        (tmp_path / "identities" / name).mkdir(parents=True)
        (tmp_path / "identities" / name / "identity.json").write_text(text)

    identity("carol", json.dumps({"name": "carol", "id52": "x", "created": "", "online": True}))
    identity("alice", json.dumps({"name": "alice", "id52": "x", "created": "", "online": True}))
    identity("bob", json.dumps({"name": "bob", "id52": "x", "created": "", "online": False}))
    identity("torn", '{"name": "to')
    identity("odd", '{"online": "yes"}')
    identity(".alice-old", json.dumps({"name": "alice", "id52": "x", "created": "", "online": True}))
    identity("n" * 65, json.dumps({"name": "n", "id52": "x", "created": "", "online": True}))
    (tmp_path / "identities" / "empty").mkdir()
    assert online_identities(Home(tmp_path)) == ["alice", "carol"]
    assert [name for name in ("torn", "odd") if name in caplog.text] == ["torn", "odd"]
