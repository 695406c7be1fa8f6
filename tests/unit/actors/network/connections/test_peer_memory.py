"""Memory accounts of connections: the estimate of unread bytes, the limits, and which connection is closed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections.peer_memory import (
    SESSIONS_OF_STRANGERS,
    UNREAD_BEFORE_HELLO,
    MemoryShare,
    PeerMemory,
)
from fastn_p2p_actors.network.connections.unread_bytes import STREAM_WINDOW, Unread
from fastn_p2p_client.limits import SESSION_WINDOW

MIB = 1024 * 1024


def heard(size: int, packets: int = 0, sent: int = 0) -> Any:
    return SimpleNamespace(udp_rx_bytes=size + 32 * packets, udp_rx_datagrams=packets, udp_tx_bytes=sent)


class Clock:
    """Event loop that has only a clock and timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, work: Any) -> Any:
        entry = (when, work)
        self.due.append(entry)

        def cancel() -> None:
            if entry in self.due:
                self.due.remove(entry)

        return SimpleNamespace(when=lambda: when, cancel=cancel)

    def call_later(self, seconds: float, work: Any) -> Any:
        return self.call_at(self.now + seconds, work)

    def run_in_executor(self, _: None, work: Any) -> None:
        work()

    def pass_on(self, seconds: float) -> None:
        end = self.now + seconds
        while due := min((entry for entry in self.due if entry[0] <= end), key=lambda entry: entry[0], default=None):
            self.due.remove(due)
            self.now = max(self.now, due[0])
            due[1]()
        self.now = end


class Peer:
    """Stub of a connection."""

    def __init__(self, *, greeted: bool = True, known: bool = False) -> None:
        self.greeted, self.known, self.closed = greeted, known, False
        self.received = self.sent = self.held = self.waiting = self.arrived = 0
        self.open_streams, self.ended_streams = 1, 0
        self.asked: list[str] = []
        self.abort_reasons: list[str] = []

    def backlog(self) -> int:
        return 200

    def traffic(self) -> Any:
        return heard(self.arrived)

    def require_answer(self) -> None:
        self.asked.append("life")

    def pause_slow_sessions(self) -> None:
        self.asked.append("tighten")

    def resume_sessions(self) -> None:
        self.asked.append("loosen")

    def resume_drained(self) -> None:
        pass

    def abort(self, reason: str) -> None:
        self.closed = True
        self.abort_reasons.append(reason)


class MemorySetup:
    def __init__(self) -> None:
        self.clock = Clock()
        self.trims = 0
        self.size = 0
        self.processor_time = 0.0
        self.memory = PeerMemory(
            cast(asyncio.AbstractEventLoop, self.clock),
            strangers=MemoryShare(20 * MIB, 30 * MIB),
            known=MemoryShare(200 * MIB, 300 * MIB),
            trim=self._trim,
            size=lambda: self.size,
            processor_time=lambda: self.processor_time,
        )

    def _trim(self) -> None:
        self.trims += 1

    def peer(self, **how: bool) -> Peer:
        peer = Peer(**how)
        self.memory.watch(peer)
        self.clock.pass_on(0.1)
        return peer


@pytest.fixture
def setup() -> MemorySetup:
    return MemorySetup()


def test_unread_bytes_are_those_received_less_those_read() -> None:
    unread = Unread()
    assert unread.update(heard(50_000, 40), 0, 2, 0) == 50_000
    assert unread.update(heard(80_000, 60), 60_000, 2, 0) == 20_000


def test_drift_goes_when_nothing_can_be_read() -> None:
    """Repeated packets and reset streams are no reason to close a connection."""
    unread = Unread()
    read = 0
    for _ in range(200):
        read += 1_000_000
        assert unread.update(heard(int(read * 1.05)), read, 0, 0) == 0
    assert unread.update(heard(int(read * 1.05) + 700_000), read, 1, 0) == 700_000
    assert unread.update(heard(int(read * 1.05) + 700_000), read, 0, 1) == 0


def test_the_capacity_of_streams_bounds_the_estimate() -> None:
    unread = Unread()
    assert unread.update(heard(STREAM_WINDOW + 100_000), 0, 1, 0) == STREAM_WINDOW


def test_bytes_that_never_become_readable_are_charged_for_good() -> None:
    """Streams without their first bytes, and everything else that QUIC keeps."""
    unread = Unread()
    assert unread.update(heard(5 * MIB), 0, 0, 0) == 5 * MIB
    assert unread.update(heard(5 * MIB), 0, 0, 0) == 5 * MIB
    assert unread.update(heard(9 * MIB), 0, 0, 0) == 9 * MIB


def test_acknowledgements_are_no_data() -> None:
    unread = Unread()
    assert unread.update(heard(2 * MIB, sent=100 * MIB), 0, 0, 0) == 0


def test_much_before_a_hello_closes_the_connection(setup: MemorySetup) -> None:
    quiet, loud = setup.peer(greeted=False), setup.peer(greeted=False)
    quiet.arrived = UNREAD_BEFORE_HELLO - 1
    loud.arrived = UNREAD_BEFORE_HELLO + 1
    setup.clock.pass_on(0.1)
    assert (len(quiet.abort_reasons), len(loud.abort_reasons)) == (0, 1)
    assert "no hello" in loud.abort_reasons[0]


def test_a_hello_that_was_only_waiting_to_be_read_is_in_time(setup: MemorySetup) -> None:
    peer = setup.peer(greeted=False)
    peer.arrived = MIB
    setup.clock.pass_on(0.01)
    peer.greeted = True
    setup.clock.pass_on(1)
    assert not peer.abort_reasons


def test_more_than_its_share_closes_a_connection(setup: MemorySetup) -> None:
    peer, friend = setup.peer(), setup.peer(known=True)
    peer.arrived = friend.arrived = 19 * MIB
    setup.clock.pass_on(1)
    assert len(peer.abort_reasons) == 1
    assert not friend.abort_reasons
    assert "tighten" in friend.asked


def test_a_connection_that_is_read_as_fast_as_it_comes_stays(setup: MemorySetup) -> None:
    """After the process was busy, many bytes have arrived at once."""
    peer = setup.peer()
    peer.arrived = 20 * MIB
    for _ in range(100):
        peer.received += MIB
        peer.received = min(peer.received, peer.arrived)
        setup.clock.pass_on(0.01)
    assert not peer.abort_reasons


def test_however_fast_strangers_are_read_all_together_stay_within_a_limit(setup: MemorySetup) -> None:
    """More may have arrived while the process was busy than peers may hold."""
    peers = [setup.peer() for _ in range(8)]
    for peer in peers:
        peer.arrived = 6 * MIB
    for _ in range(50):
        for peer in peers:
            peer.arrived += MIB
            peer.received += MIB
        setup.clock.pass_on(0.01)
    assert 0 < sum(bool(peer.abort_reasons) for peer in peers) < 8
    assert sum(peer.arrived - peer.received for peer in peers if not peer.abort_reasons) < 30 * MIB


def test_the_more_sessions_strangers_have_the_less_they_may_hold_beside(setup: MemorySetup) -> None:
    peers = [setup.peer() for _ in range(2)]
    for peer in peers:
        peer.held = 8 * MIB
    setup.clock.pass_on(1)
    assert not any(peer.abort_reasons for peer in peers)
    windows = [setup.memory.window_of_session(peers[0]) for _ in range(1600)]
    setup.clock.pass_on(1)
    assert any(peer.abort_reasons for peer in peers)
    for window in windows:
        setup.memory.session_ended(window)
    setup.clock.pass_on(1)
    again = setup.peer()
    again.held = 8 * MIB
    setup.clock.pass_on(1)
    assert not again.abort_reasons


def test_the_connection_that_makes_least_of_the_memory_is_closed(setup: MemorySetup) -> None:
    busy, hoarder, other = (setup.peer() for _ in range(3))
    hoarder.held = other.held = 9 * MIB
    for step in range(100):
        busy.held = min(14, step) * MIB
        busy.received += MIB
        setup.clock.pass_on(0.01)
    assert not busy.abort_reasons
    assert len(hoarder.abort_reasons) + len(other.abort_reasons) == 1


@pytest.mark.parametrize(("known", "scarce"), [(False, 15 * MIB), (True, 150 * MIB)])
def test_holding_much_demands_signs_of_life_only_while_memory_is_scarce(
    setup: MemorySetup, known: bool, scarce: int
) -> None:
    """A transfer of files holds some megabytes, and must outlive a link that is cut for seconds."""
    peer, other, small = (setup.peer(known=known) for _ in range(3))
    peer.held = 8 * MIB
    setup.clock.pass_on(0.2)
    assert "life" not in peer.asked
    other.held = scarce
    setup.clock.pass_on(0.2)
    assert "life" in peer.asked
    assert "life" not in small.asked


@pytest.mark.parametrize(("worked", "checks"), [(0.001, 5), (0.2, 1)], ids=["waits", "works"])
def test_a_check_that_waits_for_a_processor_keeps_the_next_one_waiting_no_longer(
    setup: MemorySetup, worked: float, checks: int
) -> None:
    """A busy machine is where peers fill most between two checks. A check that works as long has fewer after it."""
    peer = setup.peer()
    times: list[float] = []

    def traffic() -> Any:
        times.append(setup.clock.now)
        setup.clock.now += 0.2
        setup.processor_time += worked
        return heard(peer.arrived)

    peer.traffic = traffic  # type: ignore[method-assign]
    setup.clock.pass_on(1.5)
    assert len(times) == checks


def test_memory_is_given_back_after_the_end(setup: MemorySetup) -> None:
    peer = setup.peer()
    peer.held = 2 * MIB
    setup.clock.pass_on(0.2)
    setup.memory.on_connection_closed(peer)
    assert not setup.trims
    setup.clock.pass_on(10)
    assert setup.trims


def test_idle_connections_are_not_looked_at(setup: MemorySetup) -> None:
    peer = setup.peer()
    peer.open_streams = 0
    setup.clock.pass_on(1)
    assert len(setup.memory) == 0
    assert not setup.clock.due


def test_windows_of_strangers_shrink_and_those_of_known_peers_do_not(setup: MemorySetup) -> None:
    stranger, friend = setup.peer(), setup.peer(known=True)
    windows = [setup.memory.window_of_session(stranger) for _ in range(2000)]
    assert windows[0] == SESSION_WINDOW
    assert windows == sorted(windows, reverse=True)
    assert sum(windows) < 32 * MIB
    assert min(windows) >= 4096, "a process takes that many, whatever it is asked for"
    assert setup.memory.window_of_session(friend) == SESSION_WINDOW
    for window in windows:
        setup.memory.session_ended(window)
    assert setup.memory.window_of_session(stranger) == SESSION_WINDOW


def test_strangers_have_so_many_sessions_together_and_known_peers_their_own(setup: MemorySetup) -> None:
    strangers, friend = [setup.peer(), setup.peer()], setup.peer(known=True)
    windows = [setup.memory.window_of_session(strangers[0]) for _ in range(SESSIONS_OF_STRANGERS)]
    assert all(setup.memory.sessions_overload(peer) for peer in strangers)
    assert setup.memory.sessions_overload(friend) is None
    setup.memory.session_ended(windows[0])
    assert setup.memory.sessions_overload(strangers[1]) is None


async def test_large_payloads_of_strangers_take_turns() -> None:
    memory = PeerMemory(asyncio.get_running_loop())
    done = await memory.large_read_slot()
    waiting = asyncio.ensure_future(memory.large_read_slot())
    await asyncio.sleep(0)
    assert not waiting.done()
    done()
    done()
    (await waiting)()
    held = await memory.large_read_slot()  # never done: after a while the next one begins
    async with asyncio.timeout(50):
        (await memory.large_read_slot())()
    held()


def test_bytes_that_were_about_to_be_read_are_not_charged_for_good() -> None:
    unread = Unread()
    assert unread.update(heard(3 * MIB), 0, 0, 0) == 3 * MIB
    assert unread.update(heard(3 * MIB), 3 * MIB, 0, 0) == 0
    assert unread.update(heard(4 * MIB), 4 * MIB, 0, 0) == 0


# ── bytes that QUIC has dropped ──────────────────────────────────────────────────────────────────


def send_unreadable(setup: MemorySetup, peer: Peer, *, grows: bool) -> None:
    """Let 40 MiB arrive that make no stream readable, one at a time."""
    peer.backlog = lambda: 0  # type: ignore[method-assign]
    for _ in range(40):
        peer.arrived += MIB
        setup.size += int(1.6 * MIB) if grows else 0
        setup.clock.pass_on(0.1)


@pytest.mark.parametrize("known", [False, True])
def test_bytes_that_were_dropped_close_no_connection(setup: MemorySetup, known: bool) -> None:
    peer = setup.peer(known=known)
    peer.arrived = MIB
    send_unreadable(setup, peer, grows=False)
    assert not peer.closed


def test_unreadable_bytes_that_take_memory_close_the_connection(setup: MemorySetup) -> None:
    peer = setup.peer()
    send_unreadable(setup, peer, grows=True)
    assert peer.closed


def test_memory_that_others_have_given_back_hides_no_growth(setup: MemorySetup) -> None:
    """The size to compare with is the lowest since peers hold much."""
    setup.size = 100 * MIB
    peer = setup.peer()
    setup.clock.pass_on(0.1)
    peer.arrived += 2 * MIB
    setup.clock.pass_on(0.1)
    setup.size = 20 * MIB
    setup.clock.pass_on(0.1)
    send_unreadable(setup, peer, grows=True)
    assert peer.closed


def test_memory_of_ended_connections_counts_against_the_others(setup: MemorySetup) -> None:
    """QUIC frees it only when they have drained: until then the others get less, and new ones wait."""
    ended = setup.peer()
    ended.received = 2 * MIB
    setup.memory.on_connection_closed(ended)
    peer = setup.peer()
    peer.held = 8 * MIB
    setup.size = 8 * MIB
    setup.clock.pass_on(1)
    assert not setup.memory.is_draining
    assert not peer.closed
    setup.size = 40 * MIB
    setup.clock.pass_on(1)
    assert setup.memory.is_draining
    assert peer.closed


def test_the_end_of_draining_is_noticed_without_connections(setup: MemorySetup) -> None:
    peer = setup.peer()
    peer.received = 2 * MIB
    peer.held = 8 * MIB
    setup.clock.pass_on(0.2)
    setup.size = 40 * MIB
    setup.memory.on_connection_closed(peer)
    setup.clock.pass_on(0.5)
    assert setup.memory.is_draining
    setup.size = 4 * MIB
    setup.clock.pass_on(0.5)
    assert not setup.memory.is_draining


def test_a_process_that_stays_large_makes_strangers_wait_for_seconds_only(setup: MemorySetup) -> None:
    peer = setup.peer()
    peer.received = 2 * MIB
    setup.memory.on_connection_closed(peer)
    setup.size = 100 * MIB
    setup.clock.pass_on(11)
    assert not setup.memory.is_draining
    other = setup.peer()
    other.held = 10 * MIB
    setup.clock.pass_on(1)
    assert not other.closed


def test_a_peer_that_holds_little_is_not_closed_for_those_that_are_spared(setup: MemorySetup) -> None:
    """Connections that have just been filled are spared for a check. Others must not be closed in their place."""
    honest = setup.peer()
    honest.held = 2000
    setup.clock.pass_on(0.1)
    attackers = [setup.peer() for _ in range(5)]
    for attacker in attackers:
        attacker.held = 5 * MIB + MIB // 5
    setup.clock.pass_on(0.1)
    assert not honest.closed
    for _ in range(20):
        setup.clock.pass_on(0.1)
    assert any(attacker.closed for attacker in attackers)
    assert not honest.closed
