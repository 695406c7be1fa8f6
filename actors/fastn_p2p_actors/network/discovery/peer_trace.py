"""Peer trace: each step from the name of a peer to the process that serves it, for ``ping`` and ``explain``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from difflib import get_close_matches
from typing import Final, NamedTuple

from msgspec.structs import replace

from fastn_p2p_client.errors import (
    ConnectionLost,
    CredentialError,
    DeadlineExceeded,
    DelegationNotYetValid,
    Denied,
    IdentityRevoked,
    InstanceNotFound,
    LocalError,
    P2PError,
    PeerBlocked,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import PeerTrace, PingReply, TraceAttempt, TraceRecord, TraceSource
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import DEFAULT_INSTANCE
from fastn_p2p_client.peer_text import ticket_of

from ...credentials import PeerRecord, check_validity, read_record
from ...daemon_settings.sections import NetworkMode
from ..address_book import AddressBook
from ..admin_messages import MeasureRoundTrip, TracePeer
from ..connections.connection import PeerConnection
from ..connections.network_path import LOCAL
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from ..transport.address_order import is_loopback
from .access_probe import request_access
from .host_directory import HostDirectory
from .record_finder import Lookup, RecordFinder
from .router import PeerRouter
from .search import Attempt, Search

_PING_TIMEOUT: Final = 2.0
"""Seconds that a connected peer daemon gets to answer the ping of a trace."""
_ACCESS_TIMEOUT: Final = 5.0
"""Seconds that it gets to say whether it admits the caller."""


class _Causes(NamedTuple):
    """Causes of a fruitless search, beside its error.

    Attributes:
        refused: a daemon of the peer has refused an attempt.
        early: a record is not valid yet: a clock is wrong.
    """

    refused: bool
    early: bool


class PeerTracer:
    """Follows the steps that a call would take, and reports each of them, also if one fails.

    Args:
        mode: network mode, from ``NetworkMode.ALL``.
        wall: returns Unix time.
    """

    def __init__(
        self,
        registry: Registry,
        book: AddressBook,
        hosts: HostDirectory,
        router: PeerRouter,
        finder: RecordFinder,
        mode: str,
        wall: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._book = book
        self._hosts = hosts
        self._router = router
        self._finder = finder
        self._mode = mode
        self._wall = wall
        self._loop = asyncio.get_running_loop()

    async def ping(self, request: MeasureRoundTrip) -> PingReply:
        """Connect to a peer if it is not connected, and measure one round trip.

        Raises:
            IdentityOffline: the identity was named, and is not online.
            PeerUnknown, PeerOffline, PeerUnreachable: there is no connection.
            DeadlineExceeded: the peer daemon is connected, and does not answer.
            ConnectionLost: it ended the connection before it answered.
        """
        if request.identity:
            self._registry.calling_identity(request.identity)
        target = self._router.parse_peer(request.peer)
        id52 = PublicKey(target).id52
        if self._registry.by_key(target) is not None:
            return PingReply(id52, LOCAL.path, "", 0.0)
        seconds = request.timeout_ms / 1000
        search = Search(self._loop.time())
        connection = self._router.open_to(target)
        try:
            async with asyncio.timeout(seconds):
                if connection is None:
                    connection = await self._router.connect(target, request.peer, search)
                rtt = await connection.round_trip.measure()
        except TimeoutError:
            if connection is None:
                reason = search.words(self._loop.time())
                raise PeerUnreachable(peer=self._shown(request.peer, target), reason=reason) from None
            raise DeadlineExceeded(seconds=seconds) from None
        path = connection.path_now()
        return PingReply(id52, path.path, path.address, round(rtt * 1000, 3))

    async def trace(self, request: TracePeer) -> PeerTrace:
        """Follow each step to a peer. An error ends up in ``problem`` of the trace."""
        trace = PeerTrace(
            peer=request.peer if len(request.peer) <= 64 else "a ticket",
            kind="unknown",
            protocol=request.protocol,
            instance=(request.instance or DEFAULT_INSTANCE) if request.protocol else "",
        )
        try:
            target = self._router.parse_peer(request.peer)
        except P2PError as error:
            return _with_problem(trace, error, self._advice_for_name(request.peer, error))
        trace = replace(
            trace,
            peer=self._shown(request.peer, target),
            kind=self._kind(request.peer, target),
            id52=PublicKey(target).id52,
            petname=self._book.name_of(target),
        )
        source: OnlineIdentity | None = None
        no_source: P2PError | None = None
        try:
            source = self._registry.calling_identity(request.identity)
            trace = replace(trace, identity=source.name)
        except LocalError as error:
            no_source = error
        if self._registry.by_key(target) is not None:
            return self._local(trace, target, source, no_source)
        return await self._remote(trace, request, target, source, no_source)

    # ── the steps ────────────────────────────────────────────────────────────────────────────────

    def _local(
        self, trace: PeerTrace, target: bytes, source: OnlineIdentity | None, no_source: P2PError | None
    ) -> PeerTrace:
        trace = replace(trace, connected=True, path=LOCAL.path, rtt_ms=0.0)
        if no_source is not None:
            return _with_problem(trace, no_source, "")
        if not trace.protocol or source is None:
            return replace(trace, access="unknown", access_reason=_NO_PROTOCOL)
        binding = self._registry.find(target, trace.protocol, trace.instance)
        if isinstance(binding, RegisteredBinding) and not binding.admits(source.raw):
            denied = Denied(peer=trace.peer, protocol=trace.protocol, instance=trace.instance)
            return _with_problem(replace(trace, access="denied", access_reason=str(denied)), denied, _allow(trace))
        if not isinstance(binding, RegisteredBinding):
            here = next((each.name for each in self._registry if each.raw == target), "NAME")
            advice = _add(here, trace)
            return _with_problem(replace(trace, access="not offered", access_reason=str(binding)), binding, advice)
        return replace(trace, access="allowed", served_by=_served_by(binding))

    async def _remote(
        self,
        trace: PeerTrace,
        request: TracePeer,
        target: bytes,
        source: OnlineIdentity | None,
        no_source: P2PError | None,
    ) -> PeerTrace:
        seconds = request.timeout_ms / 1000
        before = self._known_sources(request.peer, target)
        lookup = self._finder.look_up(target)
        connection = self._router.open_to(target)
        trace = replace(trace, was_connected=connection is not None)
        search = Search(self._loop.time())
        problem: P2PError | None = None
        deadline = self._loop.time() + seconds
        if connection is None:
            try:
                async with asyncio.timeout(seconds):
                    connection = await self._router.connect(target, request.peer, search)
            except TimeoutError:
                problem = PeerUnreachable(peer=trace.peer, reason=search.words(self._loop.time()))
            except P2PError as error:
                problem = error
        await self._wait_for(lookup, deadline)
        now = self._loop.time()
        trace = replace(
            trace,
            sources=[*before, *_source_answers(lookup)],
            attempts=[_described(each, now, connection is not None) for each in search.attempts],
        )
        if connection is None:
            if isinstance(problem, PeerBlocked):
                trace = replace(trace, access="denied", access_reason=str(problem))
            causes = _Causes(
                refused=any(each.refused for each in search.attempts),
                early=any(record.is_early for answer in lookup.answers for record in answer.records)
                or any(
                    isinstance(_error_of(each, self._wall()), DelegationNotYetValid)
                    for _, records in self._known_records(request.peer, target)
                    for each in records
                ),
            )
            return _with_problem(trace, problem, self._advice(trace, problem, causes))
        return await self._connected(trace, connection, target, source, no_source)

    async def _connected(
        self,
        trace: PeerTrace,
        connection: PeerConnection,
        target: bytes,
        source: OnlineIdentity | None,
        no_source: P2PError | None,
    ) -> PeerTrace:
        path, address, _ = connection.path_now()
        trace = replace(trace, connected=True, endpoint=connection.endpoint.hex(), path=path, address=address)
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                trace = replace(trace, rtt_ms=round(await connection.round_trip.measure() * 1000, 3))
        except (TimeoutError, P2PError):
            silent = "its daemon is connected, but does not answer a ping"
            return replace(trace, problem=silent, advice=f"run it again: fastn-p2p explain {trace.peer}")
        if no_source is not None:
            return _with_problem(trace, no_source, "")
        if not trace.protocol or source is None:
            return replace(trace, access="unknown", access_reason=_NO_PROTOCOL)
        answer = await request_access(
            connection, source.raw, target, trace.protocol, trace.instance, seconds=_ACCESS_TIMEOUT
        )
        if answer is None:
            return replace(trace, access="allowed", served_by="a process of the peer, which has answered")
        if isinstance(answer, Denied):
            default = trace.instance == DEFAULT_INSTANCE
            binding = trace.protocol if default else f"NAME/{trace.protocol}/{trace.instance}"
            advice = f"ask its owner to let you in: fastn-p2p peer accept {source.key.id52} --allow {binding}"
            return _with_problem(replace(trace, access="denied", access_reason=str(answer)), answer, advice)
        if isinstance(answer, ProtocolNotFound | InstanceNotFound):
            advice = f"ask its owner to add it: {_add('NAME', trace)}"
            return _with_problem(replace(trace, access="not offered", access_reason=str(answer)), answer, advice)
        if isinstance(answer, ConnectionLost):
            return replace(
                trace,
                problem="its daemon has closed the connection",
                advice=f"run it again, to see whether it is refused: fastn-p2p explain {trace.peer}",
            )
        advice = _BRING_ONLINE if isinstance(answer, PeerOffline) else _CHECK_BOTH_ENDS
        return _with_problem(replace(trace, access="unknown", access_reason=str(answer)), answer, advice)

    async def _wait_for(self, lookup: Lookup, deadline: float) -> None:
        """Wait until every source has answered, or the time is over."""
        while not lookup.done and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait((lookup.changed,), timeout=left)

    def _known_sources(self, peer: str, target: bytes) -> list[TraceSource]:
        """Return the sources that are read at once."""
        now = self._wall()
        found = self._known_records(peer, target)
        problems = {"this machine": self._hosts.problem}
        return [
            TraceSource(name=name, records=[_record(each, now) for each in records], problem=problems.get(name, ""))
            for name, records in found
        ]

    def _known_records(self, peer: str, target: bytes) -> list[tuple[str, list[PeerRecord]]]:
        """Return the records of the peer by the source that is read at once."""
        found = [("address book", self._book.records_of(target)), ("this machine", self._hosts.records_of(target))]
        ticket = ticket_of(peer)
        if ticket is not None:
            found.insert(0, ("ticket", [read_record(ticket.record_bytes)]))
        return found

    # ── words ────────────────────────────────────────────────────────────────────────────────────

    def _kind(self, peer: str, target: bytes) -> str:
        if self._book.by_name(peer) is not None:
            return "petname"
        if self._registry.key_of(peer) == target:
            return "own identity"
        return "ticket" if ticket_of(peer) is not None else "ID52"

    def _shown(self, peer: str, target: bytes) -> str:
        return peer if len(peer) <= 64 else PublicKey(target).id52

    def _advice_for_name(self, peer: str, error: P2PError) -> str:
        if isinstance(error, DelegationNotYetValid):
            return _CHECK_CLOCKS
        if isinstance(error, CredentialError):
            return "ask the peer for a new ticket: fastn-p2p ticket NAME"
        names = [*(each.name for each in self._book.page("", len(self._book))), *self._registry.names()]
        near = get_close_matches(peer, names, n=1)
        if near:
            return f"did you mean {near[0]}? List the names: fastn-p2p peer list"
        if isinstance(error, PeerUnknown):
            return f"add the peer by its ticket or ID52: fastn-p2p peer add TICKET --name {peer}"
        return "copy it again from the peer: fastn-p2p identity list, or fastn-p2p ticket NAME"

    def _advice(self, trace: PeerTrace, problem: P2PError | None, causes: _Causes) -> str:
        """Return the one thing to do if there is no connection."""
        if isinstance(problem, PeerOffline):
            return _BRING_ONLINE
        if isinstance(problem, PeerBlocked):
            return f"unblock it: fastn-p2p peer unblock {trace.petname or trace.id52}"
        if isinstance(problem, IdentityRevoked):
            return "ask its owner for the new ID52, and remove this one: fastn-p2p peer list"
        if self._router.local_problem():
            return "connect this machine to a network. See what is missing: fastn-p2p netcheck"
        if not any(source.records for source in trace.sources):
            if all(source.ms is None for source in trace.sources):
                return (
                    "no LAN and no directory is asked for it. Start the daemon with --network lan or --network "
                    "internet, or get a ticket: fastn-p2p ticket NAME"
                )
            if silent := [source.name for source in trace.sources if source.problem and source.ms is not None]:
                return f"check this network, because {' and '.join(silent)} did not answer: fastn-p2p netcheck"
            return "ask its owner to start the daemon and bring the identity online, or for a ticket: fastn-p2p ticket"
        if causes.early:
            return _CHECK_CLOCKS
        if causes.refused:
            return _REJECTED_ADVICE
        if self._needs_network(trace):
            return "start the daemon with --network internet"
        if all(record.problem for source in trace.sources for record in source.records):
            return "every address is out of date. Ask the peer for a new ticket: fastn-p2p ticket NAME"
        return _CHECK_BOTH_ENDS

    def _needs_network(self, trace: PeerTrace) -> bool:
        """Return whether the network mode uses none of the peer's addresses and relays."""
        addresses = [address for attempt in trace.attempts for address in attempt.addresses]
        if not addresses:
            return self._mode != NetworkMode.INTERNET and any(attempt.relays for attempt in trace.attempts)
        return self._mode == NetworkMode.LOCAL and not any(map(is_loopback, addresses))


_BRING_ONLINE: Final = "ask its owner to bring it online: fastn-p2p identity-online NAME"
_CHECK_CLOCKS: Final = (
    "set the clock that is wrong, this machine's or the peer's. See which: fastn-p2p netcheck on both"
)
_CHECK_BOTH_ENDS: Final = (
    "ask the peer's owner whether its daemon runs (fastn-p2p status), and check this network: fastn-p2p netcheck"
)
_REJECTED_ADVICE: Final = (
    "ask the peer's owner, because its daemon runs and refuses this one: it is overloaded, it stops, or it has blocked "
    "you, which its owner sees with: fastn-p2p peer blocked"
)
_NO_PROTOCOL: Final = (
    "no protocol was named, and a peer does not list what it offers. Name one: fastn-p2p explain PEER PROTOCOL"
)


def _with_problem(trace: PeerTrace, problem: P2PError | None, advice: str) -> PeerTrace:
    return replace(trace, problem="" if problem is None else problem.statement(), advice=advice)


def _allow(trace: PeerTrace) -> str:
    return f"ask its owner to add you: fastn-p2p protocol set NAME --protocol {trace.protocol} --allow YOUR-ID52"


def _add(identity: str, trace: PeerTrace) -> str:
    """Return the command with which an owner adds what was looked for."""
    if trace.protocol == "Web":
        name = "" if trace.instance in (DEFAULT_INSTANCE, "web") else f" --name {trace.instance}"
        return f"fastn-p2p expose PORT{name} --as {identity}"
    instance = "" if trace.instance == DEFAULT_INSTANCE else f" --instance {trace.instance}"
    return f"fastn-p2p add-protocol {identity} --protocol {trace.protocol}{instance}"


def _served_by(binding: RegisteredBinding) -> str:
    hosted = any(each.hosted for each in binding.servers)
    if hosted:
        return f"the process of the identity {binding.identity.name} of this daemon"
    programs = len({each.sender.pid for each in binding.servers})
    return f"{programs} program{'' if programs == 1 else 's'} on this machine"


def _record(record: PeerRecord, now: float) -> TraceRecord:
    return TraceRecord(signed_ms=record.sequence, endpoints=len(record.endpoints), problem=_problem_of(record, now))


def _problem_of(record: PeerRecord, now: float) -> str:
    """Return the reason why a verified record is out of date; empty if it is not."""
    error = _error_of(record, now)
    if error is not None:
        return str(error)
    return "" if record.expires > now else "it has expired; its addresses are tried all the same"


def _error_of(record: PeerRecord, now: float) -> P2PError | None:
    """Return the error of the last delegation if none is valid now."""
    error: P2PError | None = None
    for endpoint in record.endpoints:
        try:
            check_validity(endpoint.delegation, now)
        except P2PError as found:
            error = found
        else:
            return None
    return error


def _source_answers(lookup: Lookup) -> list[TraceSource]:
    """Return what each source has answered, and the kinds of sources that the settings exclude."""
    asked = [
        TraceSource(
            name=answer.name,
            records=[
                TraceRecord(signed_ms=each.sequence, endpoints=each.endpoints, problem=each.problem)
                for each in answer.records
            ],
            problem=answer.problem or ("no answer yet" if answer.seconds is None else ""),
            ms=None if answer.seconds is None else int(answer.seconds * 1000),
        )
        for answer in lookup.answers
    ]
    return asked + [TraceSource(name=kind, records=[], problem=reason) for kind, reason in lookup.unused.items()]


def _described(attempt: Attempt, now: float, connected: bool) -> TraceAttempt:
    if attempt.connected:
        result = "connected"
    elif attempt.result:
        result = attempt.result
    else:
        result = "not needed" if connected else "no answer yet"
    ended = attempt.ended or now
    return TraceAttempt(
        endpoint=attempt.address.endpoint.hex(),
        addresses=list(attempt.address.addresses),
        relays=list(attempt.address.relays),
        ms=int((ended - attempt.began) * 1000),
        result=result,
    )
