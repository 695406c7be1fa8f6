"""Sleepers: identities that stay online at this endpoint while they have no process.

An identity's process asks to fall asleep. What callers need of the identity stays here: key, delegation, record,
bindings and access lists. A file of ``run/asleep/`` names the bindings, so that the identity is still asleep after a
restart of the daemon. The gateway says then whether its owner still wants it online.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import DaemonBusy, P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import UNDECODABLE, RequestSleep, SleepReply
from fastn_p2p_client.keys import proven_key
from fastn_p2p_client.names import check_name

from ..runtime.mailbox import Mailbox, Sender
from ..runtime.time_slices import in_time_slices
from .admin_messages import Sleeper, SleeperNames
from .discovery.identity_publisher import IdentityPublisher
from .serving.access_list import AccessList
from .serving.registry import OnlineIdentity, Registry
from .serving.wake_ups import WakeUps

_PARALLEL: Final = 32
"""Identities that are announced at the same time."""

log = logging.getLogger(__name__)


class SleepingBinding(msgspec.Struct, frozen=True):
    """Binding of an identity that is asleep, as its file has it."""

    protocol: str
    instance: str
    allow: tuple[str, ...]
    waiting: int = 0
    keeps_state: bool = False
    stateless: bool = False


class SleepingIdentity(msgspec.Struct, frozen=True):
    """Content of an identity's file in ``run/asleep/``."""

    bindings: tuple[SleepingBinding, ...]


class Sleepers:
    """Identities that are asleep.

    Args:
        directory: ``run/asleep/``, created when it is needed.
        access: makes the access list of a binding, given identity, protocol, instance and the owner's list.
        is_busy: returns whether a connection of an identity's process has calls, sessions or waits of its own.
    """

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        publisher: IdentityPublisher,
        mailbox: Mailbox,
        wake_ups: WakeUps,
        access: Callable[[str, str, str, tuple[str, ...]], AccessList],
        is_busy: Callable[[Sender], bool],
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._publisher = publisher
        self._mailbox = mailbox
        self._wake_ups = wake_ups
        self._access = access
        self._is_busy = is_busy

    def on_registered(self, name: str) -> None:
        """An identity's process has registered it: it is awake."""
        with contextlib.suppress(OSError):
            self._file(name).unlink()
        self._wake_ups.on_registered(name)

    def request_sleep(self, sender: Sender, identity: OnlineIdentity, message: RequestSleep) -> SleepReply:
        """Let the identity fall asleep if nothing has used it since its process has seen ``message.activity``.

        Args:
            sender: the connection that has registered the identity.
        """
        bindings = identity.bindings.values()
        activity = sum(each.calls + each.opened for each in bindings)
        is_used = (
            any(each.in_flight or each.sessions for each in bindings)
            or any(not server.hosted for each in bindings for server in each.servers)
            or any(map(self._is_busy, self._connections_of(sender)))
        )
        is_asleep = not is_used and activity == message.activity and self._write(identity)
        if is_asleep:
            self._registry.put_to_sleep(identity)
            log.info("%s has fallen asleep", identity.name)
        return SleepReply(is_asleep, activity, is_used)

    async def announce(self, sleepers: tuple[Sleeper, ...]) -> SleeperNames:
        """Bring identities online without a process, as far as their files fit. Return the names that are asleep.

        One that cannot be online, such as a revoked one, is left out.

        Raises:
            DaemonBusy, VaultLocked: the vault does not sign now.
        """
        asleep: list[str] = []
        new: list[tuple[Sleeper, SleepingIdentity]] = []
        async for sleeper in in_time_slices(sleepers):
            known = self._registry.by_name(check_name(sleeper.name, "an identity"))
            if known is not None:
                if known.is_asleep:
                    asleep.append(sleeper.name)
                continue
            stored = self._read(sleeper.name)
            if stored is not None and {(each.protocol, each.instance) for each in stored.bindings} == set(
                sleeper.bindings
            ):
                new.append((sleeper, stored))
        for start in range(0, len(new), _PARALLEL):
            asleep += await self._announce_all(new[start : start + _PARALLEL])
        return SleeperNames(tuple(asleep))

    async def remove(self, name: str) -> None:
        """Take an identity offline that may be asleep: its owner wants that, or changes it."""
        with contextlib.suppress(OSError):
            self._file(check_name(name, "an identity")).unlink()
        identity = self._registry.by_name(name)
        if identity is not None and identity.is_asleep:
            await self._publisher.bring_offline(identity)

    async def _announce_all(self, batch: list[tuple[Sleeper, SleepingIdentity]]) -> list[str]:
        outcomes = await asyncio.gather(*(self._announce(*each) for each in batch), return_exceptions=True)
        asleep: list[str] = []
        for (sleeper, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, P2PError) and not isinstance(outcome, DaemonBusy | VaultLocked):
                log.warning("%s does not stay asleep: %s", sleeper.name, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                asleep.append(sleeper.name)
        return asleep

    async def _announce(self, sleeper: Sleeper, stored: SleepingIdentity) -> None:
        name = sleeper.name

        def register(identity: OnlineIdentity) -> None:
            for each in stored.bindings:
                access = self._access(name, each.protocol, each.instance, each.allow)
                self._registry.homes.note(name, each.protocol, each.instance, keeps_state=each.keeps_state)
                self._registry.stateless.note(name, each.protocol, each.instance, stateless=each.stateless)
                self._registry.add_sleeping(identity, each.protocol, each.instance, access).waiting = each.waiting

        await self._publisher.announce(name, proven_key(sleeper.id52), listed=sleeper.listed, register=register)

    def _connections_of(self, sender: Sender) -> Iterator[Sender]:
        """Return all connections of an identity's process. In its sandbox the supervisor has made them."""
        for each in self._mailbox.senders():
            if each.identity == sender.identity if sender.identity else each.pid == sender.pid:
                yield each

    def _write(self, identity: OnlineIdentity) -> bool:
        """Write the file of an identity. Without it, the identity would not be found again after a restart."""
        content = SleepingIdentity(
            tuple(
                SleepingBinding(
                    each.protocol,
                    each.instance,
                    each.access.allow,
                    each.waiting,
                    self._registry.homes.keeps_state(identity.name, each.protocol, each.instance),
                    self._registry.stateless.includes(identity.name, each.protocol, each.instance),
                )
                for each in identity.bindings.values()
            )
        )
        path = self._file(identity.name)
        unfinished = path.with_suffix(".tmp")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(content))
            unfinished.replace(path)
        except OSError as error:
            log.error("%s stays awake: %s: %s", identity.name, path, error.strerror)
            return False
        return True

    def _read(self, name: str) -> SleepingIdentity | None:
        try:
            return msgspec.json.decode(self._file(name).read_bytes(), type=SleepingIdentity)
        except (OSError, *UNDECODABLE):
            return None

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"
