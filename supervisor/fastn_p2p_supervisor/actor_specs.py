"""Specifications of the daemon's actors, with the keys by which they recognise each other.

They are created once per start of the daemon. A restarted actor gets the same keys, so the others keep working with it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.runtime.grants import make_grant
from fastn_p2p_actors.runtime.process_setup import boot_ms
from fastn_p2p_actors.runtime.separate_users import ProcessAccount, SeparateUsers, account_of
from fastn_p2p_actors.runtime.specs import ActorSpec, GatewaySettings, IdentitySettings, NetworkSettings
from fastn_p2p_actors.storage.shared_directories import user_of
from fastn_p2p_client.errors import IdentityFailed, InvalidName
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.limits import MAX_CLIENTS_PER_PROGRAM
from fastn_p2p_client.names import check_name

from .restart_policy import Timeouts

CORE_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "vault": "fastn_p2p_actors.vault",
        "network": "fastn_p2p_actors.network",
        "gateway": "fastn_p2p_actors.gateway",
    }
)
"""Module of each core actor, in start order. They are stopped in reverse order."""
IDENTITY_MODULE: Final = "fastn_p2p_actors.identity"
GRANT_KEY_BYTES: Final = 32
_START_BYTES: Final = 8

log = logging.getLogger("supervisor")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Actors and time limits of a daemon. The defaults are those of the real one. Heartbeats are in seconds."""

    core_modules: Mapping[str, str] = field(default_factory=lambda: CORE_MODULES)
    identity_module: str = IDENTITY_MODULE
    core_heartbeat: float = 1.0
    identity_heartbeat: float = 5.0
    identity_memory: int = 2048 * 1024 * 1024
    """Bytes of data that an identity process may have; 0 for no limit."""
    program_connections: int = MAX_CLIENTS_PER_PROGRAM
    """Connections that one program may have to each process of the daemon."""
    sandbox: bool = True
    """Confine the processes, if the kernel can."""
    fixed_settings: tuple[str, ...] = ()
    """Keys of settings that the command line or the environment gives, so ``config.toml`` does not change them."""
    vault_page: int = -1
    """Descriptor of the page with the vault's master key; -1 if the vault starts locked, or is not encrypted."""
    users: SeparateUsers | None = None
    """Users of the processes; None if all have that of the supervisor."""
    version: str = "unknown"
    """Version of the daemon. To read it from what is installed would take 2 MB."""
    metrics: str = ""
    """Address at which metrics are served; empty for none."""
    worker_address: str = ""
    """Address at which workers on other machines connect; empty for none."""
    idle: int = 0
    """Idle time of new identities in seconds; 0 for none."""
    timeouts: Timeouts = Timeouts()  # noqa: RUF009  (immutable)


class ActorSpecs:
    """Specifications for one start of the daemon.

    Attributes:
        core: specifications of the core actors, in start order.
    """

    def __init__(self, home: Home, network: NetworkSection, started_ms: int, config: DaemonConfig) -> None:
        self._home = str(home.path)
        self._identities = home.identities
        self._config = config
        users = config.users
        self._grant_key = secrets.token_bytes(GRANT_KEY_BYTES)
        roles = generate_vault_keys()
        settings: dict[str, msgspec.Struct] = {
            "vault": roles.vault,
            "network": NetworkSettings(
                vault=roles.network,
                grant_key=self._grant_key,
                network=network,
                start=secrets.token_bytes(_START_BYTES),
                started_ms=boot_ms(),
                worker_address=config.worker_address,
                fixed=config.fixed_settings,
            ),
            "gateway": GatewaySettings(
                vault=roles.gateway,
                grant_key=self._grant_key,
                network_mode=network.mode,
                started_ms=started_ms,
                version=config.version,
                memory=config.identity_memory,
                identities=(0, 0) if users is None else (users.first, users.last),
                metrics=config.metrics,
                idle=config.idle,
            ),
        }
        self.core = [
            ActorSpec(
                name=name,
                module=module,
                home=self._home,
                heartbeat=config.core_heartbeat,
                settings=_to_builtins(settings[name]),
                connections=config.program_connections,
                sandbox=config.sandbox,
                account=None if users is None else account_of(users, name),
            )
            for name, module in config.core_modules.items()
        ]

    def identity(self, name: str) -> ActorSpec:
        """Return the specification of an identity's process. Raises IdentityFailed if there is no user for it."""
        account = self.worker_account(name)
        if account is not None and account.uid == account.refused[1]:
            raise IdentityFailed(identity=name, reason="its directory has no group of a user. Restart the daemon")
        return ActorSpec(
            name=f"identity-{name}",
            module=self._config.identity_module,
            home=self._home,
            heartbeat=self._config.identity_heartbeat,
            connections=self._config.program_connections,
            sandbox=self._config.sandbox,
            account=account,
            settings=_to_builtins(
                IdentitySettings(
                    identity=name, grant=make_grant(self._grant_key, name), memory=self._config.identity_memory
                )
            ),
        )

    def worker_account(self, directory: str) -> ProcessAccount | None:
        """Return the account of code of an identity, given the name of its directory; None without separate users.

        The last one of the range runs code of no identity.
        """
        users = self._config.users
        if users is None:
            return None
        number = user_of(self._identities / directory, users.first, users.last) if directory else -1
        return account_of(users, "", users.last if number < 0 else number)


class _Wanted(msgspec.Struct):
    online: bool = False
    idle: int = 0


def online_identities(home: Home) -> list[str]:
    """Return the sorted names of the identities that are to have a process. A file that cannot be read is logged.

    Those with an idle time may be asleep: the gateway finds that out.
    """
    names: list[str] = []
    for file in sorted(home.identities.glob("*/identity.json")):
        try:
            name = check_name(file.parent.name, "an identity")
            wanted = msgspec.json.decode(file.read_bytes(), type=_Wanted)
            if wanted.online and not wanted.idle:
                names.append(name)
        except (OSError, InvalidName, *UNDECODABLE) as error:
            log.warning("%s is ignored: %s. Fix or delete the file.", file, error)
    return names


def _to_builtins(settings: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(settings, builtin_types=(bytes,))
    return plain
