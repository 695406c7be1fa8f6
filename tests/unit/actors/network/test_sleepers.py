"""Sleepers: the identities that are announced after a start of the daemon, and those that are left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.admin_messages import Sleeper
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.sleepers import Sleepers, SleepingBinding, SleepingIdentity
from fastn_p2p_client.errors import DaemonBusy, IdentityNotFound, IdentityRevoked, P2PError, VaultLocked
from fastn_p2p_client.keys import PublicKey
from tests.support.signer import Signer

NAMES = ("alice", "bob", "carol")
ECHO = ("Echo", "default")


class Network:
    """Network process in which alice, bob and carol were asleep.

    Attributes:
        errors: outcome of bringing an identity online.
    """

    def __init__(self, directory: Path) -> None:
        self.registry = Registry()
        self.errors: dict[str, P2PError] = {}
        for name in NAMES:
            content = SleepingIdentity((SleepingBinding(*ECHO, ("everyone",), waiting=3),))
            (directory / f"{name}.json").write_bytes(msgspec.json.encode(content))
        parts = (
            directory,
            self.registry,
            SimpleNamespace(announce=self._announce),
            None,
            None,
            lambda *_: None,
            lambda _: False,
        )
        self.sleepers = Sleepers(*cast(tuple[Any, Any, Any, Any, Any, Any, Any], parts))

    async def _announce(
        self, name: str, key: PublicKey, *, listed: bool, register: Callable[[OnlineIdentity], None]
    ) -> None:
        if name in self.errors:
            raise self.errors[name]
        identity = OnlineIdentity(name, key, None, listed=listed)
        self.registry.add_identity(identity)
        register(identity)

    async def announce(self, *sleepers: Sleeper) -> tuple[str, ...]:
        return (await self.sleepers.announce(sleepers)).names


def sleeper(name: str, *bindings: tuple[str, str]) -> Sleeper:
    return Sleeper(name, True, bindings or (ECHO,), Signer(name).key.id52)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


async def test_those_that_fit_are_asleep_with_their_bindings(network: Network) -> None:
    wanted = sleeper("alice"), sleeper("bob", ECHO, ("Mail", "default")), sleeper("dave")
    assert await network.announce(*wanted) == ("alice",)
    alice = network.registry.by_key(bytes(Signer("alice").key))
    assert alice is not None
    assert alice.is_asleep
    assert alice.bindings[ECHO].waiting == 3


@pytest.mark.parametrize(
    "error",
    [IdentityRevoked(identity="bob", revoked="", successor=""), IdentityNotFound(identity="bob")],
    ids=lambda each: each.code,
)
async def test_one_that_cannot_be_online_leaves_the_others(network: Network, error: P2PError) -> None:
    network.errors["bob"] = error
    assert await network.announce(*map(sleeper, NAMES)) == ("alice", "carol")


@pytest.mark.parametrize("error", [DaemonBusy(actor="vault"), VaultLocked(what="it")], ids=lambda each: each.code)
async def test_vault_that_does_not_sign_now_is_tried_again(network: Network, error: P2PError) -> None:
    network.errors["bob"] = error
    with pytest.raises(type(error)):
        await network.announce(*map(sleeper, NAMES))
    network.errors.clear()
    assert sorted(await network.announce(*map(sleeper, NAMES))) == sorted(NAMES)
