"""Registry of the online identities of this daemon and of their bindings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from fastn_p2p_client.errors import (
    BindingExists,
    IdentityAmbiguous,
    IdentityOffline,
    InstanceNotFound,
    InvalidKey,
    NoIdentityOnline,
    P2PError,
    PeerOffline,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import BindingStatus
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_CALLS_PER_BINDING

from ...runtime.mailbox import Sender
from .access_list import AccessList
from .binding_homes import BindingHomes
from .expected_programs import Program
from .load_balancer import LoadBalancer, ServingProcess
from .stateless_bindings import StatelessBindings

_LATENCIES = 1024
"""Calls of a binding whose durations are kept."""


class RegisteredBinding:
    """Protocol instance of one identity, the processes that serve it, and counters of its calls and sessions.

    Counters start with the network process. ``status`` reports them.
    """

    __slots__ = (
        "access",
        "calls",
        "errors",
        "identity",
        "in_flight",
        "instance",
        "opened",
        "problem",
        "protocol",
        "seconds",
        "servers",
        "sessions",
        "waiting",
    )

    def __init__(self, identity: OnlineIdentity, protocol: str, instance: str, access: AccessList) -> None:
        self.identity = identity
        self.protocol = protocol
        self.instance = instance
        self.access = access
        self.servers = LoadBalancer()
        self.calls = 0
        self.errors = 0
        self.in_flight = 0
        self.waiting = 0
        """How much waits for the owner, as the protocol has reported."""
        self.problem = ""
        """Reason for which the protocol does not work at the moment, as it has reported."""
        self.opened = 0
        """Sessions so far."""
        self.sessions = 0
        """Sessions now."""
        self.seconds: deque[float] = deque(maxlen=_LATENCIES)

    @property
    def claims_calls(self) -> bool:
        """True if each of its processes claims retried calls in a store that all daemons of the identity share."""
        return all(server.claims_calls for server in self.servers)

    def admits(self, key: bytes) -> bool:
        """Return whether the identity with this key may use the binding. The binding's own identity always may."""
        return key == self.identity.raw or self.access.admits(key)

    def answered(self, server: ServingProcess, seconds: float, now: float) -> None:
        """Count a call that ``server`` has answered after so many seconds."""
        self.seconds.append(seconds)
        self.servers.answered(server, seconds, now)

    def status(self, standby: str = "") -> BindingStatus:
        """Return the counters, with percentiles of the last durations in milliseconds.

        Args:
            standby: state of a binding whose home is another daemon; else empty.
        """
        ordered = sorted(self.seconds)

        def percentile(share: float) -> float | None:
            return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 3) if ordered else None

        return BindingStatus(
            protocol=self.protocol,
            instance=self.instance,
            access=list(self.access.allow),
            state=standby or (f"degraded: {self.problem}" if self.problem else "serving"),
            calls=self.calls,
            errors=self.errors,
            in_flight=self.in_flight,
            opened=self.opened,
            sessions=self.sessions,
            programs=sum(not server.hosted for server in self.servers),
            p50_ms=percentile(0.50),
            p99_ms=percentile(0.99),
        )


class Publication:
    """State of an identity's record at one place, such as a directory.

    Attributes:
        published: Unix time at which the place took the record last; 0 if it never did.
        problem: reason for which the place has not taken the newest record; empty if it has.
    """

    __slots__ = ("problem", "published")

    def __init__(self, published: float = 0.0, problem: str = "") -> None:
        self.published = published
        self.problem = problem


class OnlineIdentity:
    """An identity that a local process has registered.

    Attributes:
        sender: connection that has registered it; None while it is asleep.
    """

    __slots__ = (
        "bindings",
        "delegation",
        "is_joined",
        "key",
        "listed",
        "name",
        "not_after",
        "not_before",
        "packet",
        "publications",
        "raw",
        "record",
        "sender",
    )

    def __init__(self, name: str, key: PublicKey, sender: Sender | None, *, listed: bool = True) -> None:
        self.name = name
        self.key = key
        self.raw = bytes(key)
        self.sender = sender
        self.delegation = b""
        """Signed statement that the identity speaks through this daemon's endpoint."""
        self.not_before = 0
        self.not_after = 0
        self.record = b""
        """Signed peer record: addresses at which the identity can be reached."""
        self.packet = b""
        """Body of the signed packet for directories; empty if there are none, or the identity is not listed."""
        self.listed = listed
        """False if no record source may get the record."""
        self.is_joined = False
        """True if its key is at another daemon, which sends delegation, record and packet."""
        self.publications: dict[str, Publication] = {}
        """Publications of its record, by the name of the record source."""
        self.bindings: dict[tuple[str, str], RegisteredBinding] = {}

    @property
    def is_asleep(self) -> bool:
        """True if it has no process until somebody calls it."""
        return self.sender is None


class _Registered:
    """Identities and bindings that one local connection has registered. Others may have replaced some of them since."""

    __slots__ = ("bindings", "identities", "names")

    def __init__(self) -> None:
        self.identities: dict[OnlineIdentity, None] = {}
        self.bindings: dict[RegisteredBinding, None] = {}
        self.names: dict[str, None] = {}
        """Names of the identities, online or not, of which the program serves a binding."""


# Two kinds of processes register bindings. The identity's own process (``hosted``) registers it and then
# its bindings; they go when its connection ends. Programs register a binding under the identity's name, and may do so
# before the identity is online, so these registrations are kept apart (``_programs``) and applied each time that the
# identity comes online.
#
# Precedence: a hosted binding replaces programs and refuses them, because the owner has added it, and because no
# program may keep an identity from coming online. Several programs share a binding through its load balancer. Each
# registration replaces the access list of the whole binding.
#
# Cost: a call makes two dictionary lookups. The end of a connection visits only what that connection has registered
# (``_Registered``), because a daemon may have thousands of identities. Counters outlive the process that served, so a
# restart does not reset them in ``status``. They go when the binding is unregistered.
#
# Not covered: who may register what. The network process checks a grant before it calls this.


class Registry:
    """Online identities by name and by key, and their bindings.

    Attributes:
        homes: which daemons serve the bindings that keep state.
        stateless: which bindings any daemon may serve.
        check_usable: called with the name of an identity that is not online. Raises IdentityRevoked if it was revoked.
    """

    def __init__(self) -> None:
        self.check_usable: Callable[[str], None] = lambda _: None
        self.homes = BindingHomes()
        self.stateless = StatelessBindings()
        self._by_name: dict[str, OnlineIdentity] = {}
        self._by_key: dict[bytes, OnlineIdentity] = {}
        self._counters: dict[tuple[bytes, str, str], RegisteredBinding] = {}
        self._programs: dict[str, dict[tuple[Sender, str, str], tuple[AccessList, int, bool]]] = {}
        """Access list, limit and ``claims_calls`` of each binding that a program serves, by the name of its identity,
        online or not."""
        self._of_sender: dict[Sender, _Registered] = {}

    def __iter__(self) -> Iterator[OnlineIdentity]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def names(self) -> list[str]:
        """Return the names of the online identities, sorted."""
        return sorted(self._by_name)

    def by_name(self, name: str) -> OnlineIdentity | None:
        """Return the online identity with this name; None if there is none."""
        return self._by_name.get(name)

    def key_of(self, name: str) -> bytes | None:
        """Return the key of the online identity with this name; None if there is none."""
        identity = self._by_name.get(name)
        return None if identity is None else bytes(identity.key)

    def calling_identity(self, name: str) -> OnlineIdentity:
        """Return the online identity with this name, or the only one if the name is empty.

        Raises:
            IdentityOffline: no identity with this name is online.
            IdentityRevoked: the identity with this name was revoked.
            NoIdentityOnline: the name is empty, and no identity is online.
            IdentityAmbiguous: the name is empty, and several identities are online.
        """
        if name:
            identity = self._by_name.get(name)
            if identity is None:
                self.check_usable(name)
                raise IdentityOffline(identity=name)
            return identity
        if len(self._by_name) > 1:
            raise IdentityAmbiguous.among(self._by_name)
        if not self._by_name:
            raise NoIdentityOnline()
        return next(iter(self._by_name.values()))

    def by_key(self, key: bytes) -> OnlineIdentity | None:
        """Return the online identity with this key; None if there is none."""
        return self._by_key.get(key)

    def add_identity(self, identity: OnlineIdentity) -> None:
        """Add an online identity and the bindings that programs serve for it. Replace an earlier one of its name."""
        earlier = self._by_name.get(identity.name)
        if earlier is not None:
            self.remove_identity(earlier)
        self._by_name[identity.name] = identity
        self._by_key[identity.raw] = identity
        if identity.sender is not None:
            self._registered_by(identity.sender).identities[identity] = None
        for (sender, protocol, instance), (access, limit, claims) in self._programs.get(identity.name, {}).items():
            self.serve(identity, protocol, instance, access, sender, limit=limit, hosted=False, claims_calls=claims)

    def put_to_sleep(self, identity: OnlineIdentity) -> None:
        """Keep an identity and its bindings although its process is about to end."""
        sender, identity.sender = identity.sender, None
        if sender is None:
            return
        registered = self._registered_by(sender)
        registered.identities.pop(identity, None)
        for binding in identity.bindings.values():
            binding.servers.remove(sender)
            registered.bindings.pop(binding, None)

    def add_sleeping(
        self, identity: OnlineIdentity, protocol: str, instance: str, access: AccessList
    ) -> RegisteredBinding:
        """Add a binding of an identity that is asleep. Programs that serve it already go on."""
        return identity.bindings.get((protocol, instance)) or self._new_binding(identity, protocol, instance, access)

    def remove_identity(self, identity: OnlineIdentity) -> None:
        """Remove an identity unless another one has taken its name."""
        if self._by_name.get(identity.name) is identity:
            del self._by_name[identity.name]
            del self._by_key[identity.raw]

    def serve(
        self,
        identity: OnlineIdentity,
        protocol: str,
        instance: str,
        access: AccessList,
        sender: Sender,
        *,
        limit: int = MAX_CALLS_PER_BINDING,
        hosted: bool = True,
        claims_calls: bool = False,
    ) -> RegisteredBinding:
        """Register ``sender`` as a process that serves the binding. If it does so already, replace its limit.

        The binding's access list is replaced for all its processes. A hosted process takes the place of programs.

        Args:
            limit: requests and sessions that the process takes at the same time.
            hosted: true of the identity's own process, false of a program.
            claims_calls: whether it claims retried calls in a store that all daemons of the identity share.

        Raises:
            BindingExists: ``sender`` is a program, and the identity's own process serves the binding.
        """
        binding = identity.bindings.get((protocol, instance))
        if binding is None:
            binding = self._new_binding(identity, protocol, instance, access)
        elif not hosted and any(server.hosted for server in binding.servers):
            raise BindingExists(identity=identity.name, protocol=protocol, instance=instance)
        binding.access = access
        server = binding.servers.of(sender)
        if server is not None:
            server.limit, server.claims_calls = limit, claims_calls
            return binding
        if hosted:
            binding.servers.clear()  # programs, or the identity's previous process
            for sending, *what in list(self._programs.get(identity.name, ())):
                if what == [protocol, instance]:
                    self._remove_program(identity.name, (sending, protocol, instance))
        self._registered_by(sender).bindings[binding] = None
        server = ServingProcess(binding, sender, limit, hosted)
        server.claims_calls = claims_calls
        binding.servers.add(server)
        return binding

    def serve_by_program(
        self,
        name: str,
        protocol: str,
        instance: str,
        access: AccessList,
        sender: Sender,
        limit: int,
        *,
        claims_calls: bool = False,
    ) -> None:
        """Register a program as a process that serves the binding whenever the identity with this name is online.

        Raises:
            BindingExists: the identity's own process serves the binding.
        """
        identity = self._by_name.get(name)
        if identity is not None:
            self.serve(
                identity, protocol, instance, access, sender, limit=limit, hosted=False, claims_calls=claims_calls
            )
        self._programs.setdefault(name, {})[sender, protocol, instance] = access, limit, claims_calls
        self._registered_by(sender).names[name] = None

    def programs(self) -> Iterator[Program]:
        """Iterate over the bindings that programs serve, whether their identities are online or not."""
        for identity, programs in self._programs.items():
            for sender, protocol, instance in programs:
                yield Program(sender.pid, identity, protocol, instance)

    def _remove_program(self, name: str, program: tuple[Sender, str, str]) -> bool:
        """Remove a program's registration. Return whether there was one."""
        programs = self._programs.get(name, {})
        known = programs.pop(program, None) is not None
        if known and not programs:
            del self._programs[name]
        return known

    def _registered_by(self, sender: Sender) -> _Registered:
        found = self._of_sender.get(sender)
        if found is None:
            found = self._of_sender[sender] = _Registered()
        return found

    def _new_binding(
        self, identity: OnlineIdentity, protocol: str, instance: str, access: AccessList
    ) -> RegisteredBinding:
        binding = RegisteredBinding(identity, protocol, instance, access)
        earlier = self._counters.get((identity.raw, protocol, instance))
        if earlier is not None:
            binding.calls, binding.errors, binding.seconds = earlier.calls, earlier.errors, earlier.seconds
            binding.opened = earlier.opened
        self._counters[identity.raw, protocol, instance] = binding
        identity.bindings[protocol, instance] = binding
        return binding

    def unregister(self, name: str, protocol: str, instance: str, sender: Sender) -> bool:
        """Unregister a binding of ``sender``. Return whether it was registered."""
        served = self._remove_program(name, (sender, protocol, instance))
        identity = self._by_name.get(name)
        binding = identity.bindings.get((protocol, instance)) if identity is not None else None
        if identity is not None and binding is not None and binding.servers.of(sender) is not None:
            binding.servers.remove(sender)
            self._registered_by(sender).bindings.pop(binding, None)
            if not binding.servers:
                del identity.bindings[protocol, instance]
                self._counters.pop((identity.raw, protocol, instance), None)
            served = True
        return served

    def remove_sender(self, sender: Sender) -> bool:
        """Remove all that ``sender`` has registered: its process has ended. Return whether anything was removed."""
        registered = self._of_sender.pop(sender, None)
        if registered is None:
            return False
        for name in registered.names:
            for program in [each for each in self._programs.get(name, ()) if each[0] is sender]:
                self._remove_program(name, program)
        lost = False
        for binding in registered.bindings:
            if binding.servers.of(sender) is None:
                continue  # another process has taken its place
            binding.servers.remove(sender)
            lost = True
            bindings, key = binding.identity.bindings, (binding.protocol, binding.instance)
            if not binding.servers and bindings.get(key) is binding:
                del bindings[key]
        for identity in registered.identities:
            if self._by_name.get(identity.name) is identity:
                self.remove_identity(identity)
                lost = True
        return lost

    def find(self, target: bytes, protocol: str, instance: str) -> RegisteredBinding | P2PError:
        """Return the binding that a request is for, or the error that says why there is none."""
        identity = self._by_key.get(target)
        if identity is None:
            try:
                return PeerOffline(peer=PublicKey(target).id52)
            except InvalidKey as error:
                return error
        binding = identity.bindings.get((protocol, instance))
        if binding is not None:
            return binding
        if any(known == protocol for known, _ in identity.bindings):
            return InstanceNotFound(peer=identity.key.id52, protocol=protocol, instance=instance)
        return ProtocolNotFound(peer=identity.key.id52, protocol=protocol)
