"""Sessions with events in any order: in the end no task waits, and every outcome is true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastn_p2p_client.errors import ConnectionLost, P2PError, SessionClosed, StreamReset
from fastn_p2p_client.limits import RESET_CLOSED
from fastn_p2p_client.session.session import Session
from tests.support.in_process_hop import CHUNK, Hop, RelayedHop, small_windows
from tests.support.session_endpoints import STREAMS


class Player:
    """Model of one side of a session: executes operations and records their outcomes."""

    def __init__(self, session: Session, stream: bytes) -> None:
        self.session = session
        self._stream = stream
        self._writing: asyncio.Task[object] | None = None
        self._reading: asyncio.Task[object] | None = None
        self._planned = 0
        self._closing: list[asyncio.Task[object]] = []
        self.heard = b""
        self.complete = False
        self.errors: list[BaseException] = []
        self.codes: set[int] = set()
        """With which this side has ended the session."""

    def do(self, what: str, size: int) -> None:
        if what == "write" and (self._writing is None or self._writing.done()):
            data = self._stream[self._planned : self._planned + size]
            self._planned += size
            self._writing = asyncio.create_task(self._record_error(self.session.write(data)))
        elif what == "read" and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(size + 1))
        elif what == "eof":
            self._closing.append(asyncio.create_task(self._record_error(self.session.send_eof())))
        elif what == "close":
            self.codes.add(RESET_CLOSED)
            self._closing.append(asyncio.create_task(self._record_error(self.session.close())))
        elif what == "reset":
            self.codes.add(size)
            self.session.reset(size)

    async def _record_error(self, work: Awaitable[object]) -> object:
        try:
            return await work
        except P2PError as error:
            self.errors.append(error)
            return error

    async def _read(self, limit: int) -> object:
        got = await self._record_error(self.session.read(limit))
        if isinstance(got, bytes):
            assert len(got) <= limit
            assert not (got and self.complete)
            self.heard += got
            self.complete = self.complete or not got
        return got

    def _tasks(self) -> list[asyncio.Task[object]]:
        return [task for task in (self._writing, self._reading, *self._closing) if task is not None]

    @property
    def waits(self) -> bool:
        return any(not task.done() for task in self._tasks())

    def die(self) -> None:
        for task in self._tasks():
            task.cancel()

    def faults(self) -> Iterator[BaseException]:
        """Exceptions other than the system's."""
        for task in self._tasks():
            if task.done() and (error := task.exception()) is not None:
                yield error


def assert_consistent(player: Player, other: Player, *, broken: bool = False) -> None:
    """Check what one side has received against what the other one has sent."""
    assert other._stream.startswith(player.heard)
    assert player.session.bytes_read == len(player.heard)
    assert len(player.heard) <= other.session.bytes_written <= other._planned
    if player.complete:
        assert len(player.heard) == other.session.bytes_written
    for error in player.errors:
        if isinstance(error, StreamReset):
            assert error.reset_code in other.codes
        elif isinstance(error, ConnectionLost):
            assert broken
        else:
            assert isinstance(error, SessionClosed), repr(error)
    assert not list(player.faults())


actions = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(
            st.sampled_from(["write", "read", "write", "read", "eof", "close", "reset"]),
            st.integers(0, 1),
            st.one_of(st.integers(0, 2500), st.integers(0, 3)),
        ),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", [Hop, RelayedHop])
@settings(max_examples=250)
@given(actions=actions, last=st.lists(st.sampled_from(["close", "reset"]), min_size=2, max_size=2))
@example(actions=[("reset", 1, 7)], last=["close", "close"])
@example(actions=[("write", 1, 9), ("eof", 1, 0), ("close", 0, 0), ("deliver", 0, 4)], last=["reset", "close"])
async def test_both_sides_end_in_any_order_of_events(
    kind: type[Hop], actions: list[tuple[str, int, int]], last: list[str]
) -> None:
    """Writes, reads, ends and messages in any order; in the end no task waits, and every outcome is true."""

    with small_windows():
        hop = kind()
        players = [Player(session, stream) for session, stream in zip(hop.ends, STREAMS, strict=True)]
        for what, where, size in actions:
            if what == "deliver":
                for _ in range(size):
                    hop.queues[where % len(hop.queues)].deliver()
            elif where or hop.opener.opened.done():
                players[where].do(what, size)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for player, what in zip(reversed(players), last, strict=True):
            player.do(what, 0)
            if not hop.opener.opened.done():
                await hop.deliver_until_idle()
        await hop.deliver_until_idle()
        assert hop.ended == [1, 1]
        assert [end.is_over for end in hop.ends] == [True, True]
        assert [player.waits for player in players] == [False, False]
        assert_consistent(players[0], players[1])
        assert_consistent(players[1], players[0])
        if isinstance(hop, RelayedHop):
            assert hop.relay.done
            assert hop.relay_ended == 1


@settings(max_examples=250)
@given(actions=actions, crashed_side=st.integers(0, 1), more=actions, last=st.sampled_from(["close", "reset", "read"]))
async def test_the_remaining_side_learns_the_truth_when_its_peer_ends(
    actions: list[tuple[str, int, int]], crashed_side: int, more: list[tuple[str, int, int]], last: str
) -> None:
    """Invariant: a direction that was received completely was sent completely, and no task waits for it."""

    with small_windows():
        hop = RelayedHop()
        hop.server.accept()
        hop.deliver_all()
        players = [Player(session, stream) for session, stream in zip(hop.ends, STREAMS, strict=True)]
        survivor, crashed = players[1 - crashed_side], players[crashed_side]

        async def act(actions: list[tuple[str, int, int]], *, alive: bool) -> None:
            for what, where, size in actions:
                if what == "deliver":
                    for _ in range(size):
                        hop.queues[where].deliver()
                elif alive or where != crashed_side:
                    players[where].do(what, size)
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        await act(actions, alive=True)
        crashed.die()
        towards_relay, towards_crashed = (
            (hop.queues[0], hop.queues[3]) if crashed_side == 0 else (hop.queues[2], hop.queues[1])
        )
        while towards_relay.deliver():  # what it had said before counts
            pass
        (hop.relay.on_opener_lost if crashed_side == 0 else hop.relay.on_server_lost)()
        assert hop.relay.done
        assert hop.relay_ended == 1
        towards_crashed.waiting.clear()
        await act(more, alive=False)
        survivor.do(last, 0)
        await hop.deliver_until_idle()
        if last == "read":  # it reads on until there is an end, and then everything is over
            while survivor.session.bytes_read < crashed.session.bytes_written and not survivor.errors:
                survivor.do("read", CHUNK)
                await hop.deliver_until_idle()
        assert not survivor.waits
        assert survivor.session.is_over
        assert_consistent(survivor, crashed, broken=True)
