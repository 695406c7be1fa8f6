"""LAN source: announces the records of online identities on the LAN, and finds those of others there."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

from fastn_p2p_client.errors import BadMessage, P2PError

from ....credentials.lan_record import lan_label, open_from_lan, seal_for_lan
from ...serving.registry import Publication
from ..record_source import OnRecord, PublishedIdentity
from .interfaces import Link
from .messages import MAX_SEALED, encode_announcement, encode_goodbye, encode_queries, is_query, labels_in, read_sealed
from .multicast import Multicast

log = logging.getLogger(__name__)

LAN: Final = "LAN"

_QUERIES: Final = (0.2, 0.3, 0.3)
"""Seconds to wait for answers after each query of a search. Wi-Fi loses multicast, so there are several."""
_MORE: Final = 0.2
"""Seconds after the first answer in which other daemons of the same identity may answer."""
_BATCH_DELAY: Final = 0.005
"""Seconds in which questions for several identities are gathered into one packet."""
_ANSWER_INTERVAL: Final = 0.25
"""Seconds between two answers for one identity on one link. RFC 6762, section 6, wants 1 s for those who keep answers
to others. Daemons keep none, so a second caller would wait longer than it may."""
_REPEAT: Final = 1.0
"""Seconds until an announcement is repeated (RFC 6762, section 8.3)."""
_SPREAD: Final = 0.1
"""Seconds over which announcements for a new link are spread: other hosts may see it at the same moment."""
_REMEMBER: Final = 120.0
"""Seconds after a search in which announcements are still used. Waiting programs search more often than that."""
_MAX_SEARCHED: Final = 1024
"""Identities that are remembered so, some 1 KB each."""
_MAX_LABELS: Final = 8
"""Identities whose keys are tried on one response."""

OnAnnouncement = Callable[[bytes, bytes], None]
"""Called with an identity and a record of it, not verified, that came without a search."""


class LanUnavailable(P2PError):
    """No host of a LAN can be asked. Never leaves the network process."""

    code = "lan-unavailable"
    retryable = True
    template = "{reason}"
    reason: str


class _Published:
    """Announcement of one online identity."""

    __slots__ = ("answer_at", "identity", "instance", "label", "packet", "record", "repeat")

    def __init__(self, identity: PublishedIdentity, label: bytes) -> None:
        self.identity = identity
        self.label = label
        self.instance = secrets.token_hex(8).encode()
        self.record = b""
        self.packet = b""
        self.answer_at: dict[Link, float] = {}
        """Time from which it may be sent on a link again."""
        self.repeat: asyncio.TimerHandle | None = None


class _Searched:
    """Identity that is searched for, or was not long ago."""

    __slots__ = ("key", "listeners", "record", "sealed", "until")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.until = 0.0
        self.listeners: list[OnRecord] = []
        self.sealed = self.record = b""
        """Message heard last, and the record in it: hosts send the same on each link, and again."""


class LanSource:
    """Record source of the LAN.

    Args:
        on_announcement: called with what comes for identities that were searched a short time ago.
        wall: returns Unix time.
    """

    name: str = LAN

    def __init__(self, on_announcement: OnAnnouncement, wall: Callable[[], float]) -> None:
        self._on_announcement = on_announcement
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._multicast = Multicast(self._on_packet, self._on_links)
        self._published: dict[bytes, _Published] = {}
        """By label."""
        self._searched: OrderedDict[bytes, _Searched] = OrderedDict()
        """By label, the one that was searched last at the end."""
        self._questions: dict[frozenset[Link], dict[bytes, None]] = {}
        """Labels to ask for with the next packet, by the links on which to ask."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._followed: set[bytes] = set()
        """Labels whose packets the kernel lets pass."""

    @property
    def problem(self) -> str:
        """Reason for which nothing can be sent on any LAN, for ``status``; empty if something can."""
        return self._multicast.problem

    def _unavailable(self) -> str:
        """Return the reason for which no host can be asked or told, also where it is no fault; empty if it can."""
        nowhere = "" if self._multicast.links else "this host is in no LAN: no network interface has multicast"
        return self.problem or nowhere

    def open(self) -> None:
        """Take part in every LAN, now or as soon as there is one."""
        self._multicast.set_labels(self._followed)
        self._multicast.open()

    def close(self) -> None:
        for published in self._published.values():
            self._send_goodbye(published)
        self._published.clear()
        for timer in self._timers:
            timer.cancel()
        self._multicast.close()

    # ── searching ────────────────────────────────────────────────────────────────────────────────

    async def search(self, key: bytes, found: OnRecord) -> None:
        """Ask every host of the LAN. See ``RecordSource.search``."""
        if not self._multicast.links:
            raise LanUnavailable(reason=self._unavailable())
        first = self._loop.create_future()

        def on_record(record: bytes) -> None:
            found(record)
            if not first.done():
                first.set_result(None)

        label = lan_label(key).encode()
        searched = self._remember(label, key)
        searched.listeners.append(on_record)
        try:
            for number, seconds in enumerate(_QUERIES):
                self._query(label, self._links_of_query(number))
                await asyncio.wait([first], timeout=seconds)
                if first.done():
                    await asyncio.sleep(_MORE)
                    return
        finally:
            searched.listeners.remove(on_record)
        if self.problem:
            raise LanUnavailable(reason=self.problem)

    def _remember(self, label: bytes, key: bytes) -> _Searched:
        searched = self._searched.get(label) or _Searched(key)
        searched.until = self._loop.time() + _REMEMBER
        self._searched[label] = searched
        self._searched.move_to_end(label)
        while len(self._searched) > _MAX_SEARCHED:
            self._searched.popitem(last=False)
        self._follow(label)
        return searched

    def _follow(self, label: bytes) -> None:
        """Receive packets that name this label, and no longer those that are of no interest any more."""
        if label in self._followed:
            return
        now = self._loop.time()
        searched = {each for each, about in self._searched.items() if now < about.until or about.listeners}
        self._followed = searched | self._published.keys()
        self._multicast.set_labels(self._followed)

    def _links_of_query(self, number: int) -> frozenset[Link]:
        """Return the links for one query of a search: the first ones, then all, then those that were asked once."""
        every, first = self._multicast.links, self._multicast.first_links
        return (first, every, every - first or every)[number]

    def _query(self, label: bytes, links: frozenset[Link]) -> None:
        if not self._questions:
            self._call_later(_BATCH_DELAY, self._send_questions)
        self._questions.setdefault(links, {})[label] = None

    def _send_questions(self) -> None:
        questions, self._questions = self._questions, {}
        for links, labels in questions.items():
            for packet in encode_queries(labels):
                self._multicast.send(packet, links)

    def _on_response(self, packet: bytes, labels: set[bytes]) -> None:
        now = self._loop.time()
        wanted = [self._searched[label] for label in sorted(labels)[:_MAX_LABELS]]
        sealed_records = read_sealed(packet)
        for searched in wanted:
            if now >= searched.until and not searched.listeners:
                continue
            for sealed in sealed_records:
                is_new = sealed != searched.sealed
                if is_new:
                    try:
                        record = open_from_lan(searched.key, sealed)
                    except BadMessage:  # of another identity, or forged
                        continue
                    searched.sealed, searched.record = sealed, record
                for listener in list(searched.listeners):
                    listener(searched.record)
                if is_new and not searched.listeners:
                    self._on_announcement(searched.key, searched.record)

    # ── publishing ───────────────────────────────────────────────────────────────────────────────

    def publish(self, identity: PublishedIdentity) -> None:
        label = lan_label(identity.raw).encode()
        published = self._published.get(label)
        if published is not None and published.identity is identity and published.record == identity.record:
            return
        sealed = seal_for_lan(identity.raw, identity.record)
        if len(sealed) > MAX_SEALED:
            problem = f"its record is too large for the LAN: {len(identity.record)} bytes"
            identity.publications[LAN] = Publication(problem=problem)
            log.warning("%s is not published on the LAN: %s", identity.name, problem)
            return
        if published is None:
            published = self._published[label] = _Published(identity, label)
            self._follow(label)
        published.identity = identity
        published.record = identity.record
        published.packet = encode_announcement(label, published.instance, sealed)
        self._announce(published)

    def unpublish(self, identity: PublishedIdentity) -> None:
        published = self._published.pop(lan_label(identity.raw).encode(), None)
        if published is not None:
            self._send_goodbye(published)

    def _announce(self, published: _Published) -> None:
        """Send the announcement now, and once more."""
        if self._published.get(published.label) is not published:
            return
        self._multicast.send(published.packet)
        problem = self._unavailable()
        before = published.identity.publications.get(LAN, Publication())
        published.identity.publications[LAN] = Publication(before.published if problem else self._wall(), problem)
        published.answer_at = dict.fromkeys(self._multicast.links, self._loop.time() + _ANSWER_INTERVAL)
        if published.repeat is not None:
            published.repeat.cancel()
        published.repeat = self._loop.call_later(
            _REPEAT * random.uniform(1, 1.2), lambda: self._multicast.send(published.packet)
        )

    def _send_goodbye(self, published: _Published) -> None:
        published.identity.publications.pop(LAN, None)
        if published.repeat is not None:
            published.repeat.cancel()
        self._multicast.send(encode_goodbye(published.label, published.instance))

    def _answer(self, published: _Published, link: Link) -> None:
        """Answer on a link, but not more often than ``_ANSWER_INTERVAL`` allows."""
        now = self._loop.time()
        at = published.answer_at.get(link, -inf)
        if at == inf:  # an answer is due already
            return
        if now < at:
            published.answer_at[link] = inf
            self._call_later(at - now, partial(self._answer_now, published, link))
        else:
            self._answer_now(published, link)

    def _answer_now(self, published: _Published, link: Link) -> None:
        if self._published.get(published.label) is published:
            published.answer_at[link] = self._loop.time() + _ANSWER_INTERVAL
            self._multicast.send(published.packet, [link])

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    def _on_packet(self, packet: bytes, link: Link) -> None:
        labels = labels_in(packet)
        if not labels:
            return
        if is_query(packet):
            for label in labels & self._published.keys():
                published = self._published[label]
                if published.instance not in packet:  # it is there if the host that asks knows the answer
                    self._answer(published, link)
            return
        searched = labels & self._searched.keys()
        if searched:
            try:
                self._on_response(packet, searched)
            except BadMessage as error:
                log.debug("a packet on %s is not used: %s", link.interface, error)

    def _on_links(self) -> None:
        """Announce everything on a new link, and ask there for what was not found before."""
        for published in self._published.values():
            self._call_later(random.uniform(0, _SPREAD), partial(self._announce, published))
        now = self._loop.time()
        for label, searched in self._searched.items():
            if now < searched.until:
                self._query(label, self._multicast.links)

    def _call_later(self, seconds: float, action: Callable[[], object]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)
