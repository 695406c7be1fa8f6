"""Binding homes: which daemon serves a binding that keeps state, if several daemons serve its identity.

The owner's vault chooses the home of each such binding, and numbers its choices: a higher term replaces a lower one.
All other daemons refuse requests for the binding, before any handler has seen them, with ``HomeAway``. It names the
home's endpoint, and the caller's daemon goes there by itself. So the home sees the caller as ever, and its own access
list decides.

A replica that has just started, or was frozen, may have missed that the home was moved. Until it has reached the
owner's daemon, or has failed to, it refuses requests although it was the home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import HomeAway
from fastn_p2p_client.keys import KEY_BYTES, PublicKey
from fastn_p2p_client.limits import MAX_NAME

MAX_HOMES = 64
"""Bindings of one identity that have a home, or are reported to be without one."""
_OWNER = "the owner's daemon"
Name = Annotated[str, Meta(max_length=MAX_NAME)]


class BindingHome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Home of one binding, as the owner's daemon tells it."""

    protocol: Name
    instance: Name
    endpoint: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    term: Annotated[int, Meta(ge=0)]
    """Number of the choice; see ``vault.messages.HomeEntry``."""
    daemon: Name
    """Name of that daemon; empty for the owner's."""
    seconds: int
    """Seconds since the owner's daemon has heard of it."""

    @property
    def binding(self) -> str:
        """Protocol and instance, as ``ReplicaInfo`` has them."""
        return f"{self.protocol}/{self.instance}"

    @property
    def choice(self) -> tuple[bytes, int, str]:
        """Choice of the owner; the rest is news of that daemon."""
        return self.endpoint, self.term, self.daemon


class _Identity(Protocol):
    """Identity of a binding."""

    name: str
    key: PublicKey
    raw: bytes


class HomedBinding(Protocol):
    """Binding that may have a home."""

    protocol: str
    instance: str

    @property
    def identity(self) -> _Identity:
        """Identity that it is of."""
        ...


class _IdentityHomes:
    """Homes of one identity's bindings, and whether this daemon may act on them."""

    __slots__ = ("by_binding", "is_confirmed")

    def __init__(self, homes: Iterable[BindingHome], is_confirmed: Callable[[], bool]) -> None:
        self.by_binding = {(each.protocol, each.instance): each for each in homes}
        self.is_confirmed = is_confirmed


class BindingHomes:
    """Homes of the bindings of this daemon's identities. It is false while no identity is at several daemons.

    Attributes:
        own: endpoint of this daemon.
        on_changed: called with the key of an identity whose homes have changed.
    """

    def __init__(self) -> None:
        self.own = b""
        self.on_changed: Callable[[bytes], object] = lambda _: None
        self._identities: dict[bytes, _IdentityHomes] = {}
        self._stateful: set[tuple[str, str, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._identities)

    def set(
        self, identity: bytes, homes: Iterable[BindingHome], is_confirmed: Callable[[], bool] = lambda: True
    ) -> None:
        """Set the homes of an identity that is at several daemons, in place of all earlier ones.

        Args:
            is_confirmed: returns whether this daemon knows the newest homes, as far as it can.
        """
        before = self._choices(identity)
        self._identities[identity] = _IdentityHomes(homes, is_confirmed)
        if self._choices(identity) != before:
            self.on_changed(identity)

    def remove(self, identity: bytes) -> None:
        """Forget the homes of an identity: only this daemon serves it, or the owner's daemon chooses none."""
        if self._identities.pop(identity, None) is not None:
            self.on_changed(identity)

    def _choices(self, identity: bytes) -> dict[str, tuple[bytes, int, str]]:
        return {each.binding: each.choice for each in self.of(identity)}

    def of(self, identity: bytes) -> list[BindingHome]:
        """Return the homes of an identity."""
        found = self._identities.get(identity)
        return [] if found is None else list(found.by_binding.values())

    # ── bindings that keep state ─────────────────────────────────────────────────────────────────

    def note(self, identity: str, protocol: str, instance: str, *, keeps_state: bool) -> None:
        """Remember whether a binding keeps state, as its protocol says."""
        (self._stateful.add if keeps_state else self._stateful.discard)((identity, protocol, instance))

    def keeps_state(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether a binding keeps state."""
        return (identity, protocol, instance) in self._stateful

    def without_home(self, identity: bytes, bindings: Iterable[HomedBinding]) -> list[tuple[str, str]]:
        """Return those of the bindings of an identity that keep state and have no home yet."""
        found = self._identities.get(identity)
        known = found.by_binding if found is not None else {}
        names = ((each.protocol, each.instance) for each in self.stateful(bindings))
        return [each for each in names if each not in known]

    def stateful(self, bindings: Iterable[HomedBinding]) -> list[HomedBinding]:
        """Return those of the bindings that keep state."""
        return [each for each in bindings if self.keeps_state(each.identity.name, each.protocol, each.instance)]

    # ── decisions ────────────────────────────────────────────────────────────────────────────────

    def elsewhere(self, binding: HomedBinding) -> HomeAway | None:
        """Return the error for requests to a binding that this daemon must not serve; None if it may serve it."""
        found = self._identities.get(binding.identity.raw)
        if found is None:
            return None
        home = found.by_binding.get((binding.protocol, binding.instance))
        if home is None:
            if not self.keeps_state(binding.identity.name, binding.protocol, binding.instance):
                return None
            return self._away(binding, "not chosen yet", b"", 0, 0)
        if home.endpoint != self.own:
            daemon = home.daemon or _OWNER
            return self._away(binding, daemon, home.endpoint, home.term, home.seconds)
        if not found.is_confirmed():
            return self._away(binding, "not confirmed yet", home.endpoint, home.term, 0)
        return None

    def daemon_elsewhere(self, binding: HomedBinding) -> str:
        """Return the daemon that is the home of a binding, in words; empty if this one is, or none was chosen yet."""
        found = self._identities.get(binding.identity.raw)
        home = None if found is None else found.by_binding.get((binding.protocol, binding.instance))
        if home is None or home.endpoint == self.own:
            return ""
        return home.daemon or _OWNER

    def standby(self, binding: HomedBinding) -> str:
        """Return the state of a binding whose home is another daemon, for ``status``; empty if this one is."""
        away = self.elsewhere(binding)
        return "" if away is None else f"standby: its home is {away.daemon}"

    @staticmethod
    def _away(binding: HomedBinding, daemon: str, endpoint: bytes, term: int, seconds: int) -> HomeAway:
        return HomeAway(
            peer=binding.identity.key.id52,
            protocol=binding.protocol,
            instance=binding.instance,
            daemon=daemon,
            endpoint=endpoint.hex(),
            term=term,
            seconds=seconds,
        )
