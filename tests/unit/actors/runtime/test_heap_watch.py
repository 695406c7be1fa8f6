"""A process trims its heap after a peak, once it has little to do, and not while it works."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.runtime.heap_watch import GROWN_BY, HeapWatch

MIB = 1024 * 1024


class Process:
    """Process whose size and work the test controls."""

    def __init__(self) -> None:
        self.size = 30 * MIB
        self.now = self.worked = 0.0
        self.trims = 0
        self.free = 0
        """Bytes that a trim gives back."""
        self.takes = self.spent = 0.0
        """Seconds that it takes, and that all have taken."""
        self.watch = HeapWatch(
            lambda work: work(),
            trim=self._trim,
            size=lambda: self.size,
            clock=lambda: self.now,
            worked=lambda: self.worked,
            spent=lambda: self.spent,
        )

    def _trim(self) -> None:
        self.trims += 1
        self.size -= self.free
        self.free = 0
        self.now += self.takes
        self.spent += self.takes

    def look(self, *, share: float = 0.0) -> bool:
        """Check after a second in which the process took that share of a processor."""
        self.now += 1
        self.worked += share
        return self.watch.check()


@pytest.fixture
def process() -> Process:
    return Process()


def test_nothing_happens_to_a_process_that_stays_as_it_is(process: Process) -> None:
    for _ in range(100):
        assert not process.look()
    process.size += GROWN_BY
    assert not process.look(share=0.1)
    assert process.trims == 0


def test_memory_of_a_peak_is_returned(process: Process) -> None:
    process.size += 300 * MIB
    process.free = 290 * MIB
    assert not process.look(share=0.1)
    assert process.trims == 1
    for _ in range(100):
        assert not process.look()
    assert process.trims == 1, "it has done nothing since, and the rest is in use"


def test_memory_freed_after_a_trim_is_returned_too(process: Process) -> None:
    process.size += 300 * MIB
    process.look(share=0.1)
    assert process.trims == 1, "in vain"
    process.free = 290 * MIB
    while process.look(share=0.1):
        assert process.now < 10
    assert process.trims == 2
    assert process.size == 40 * MIB


def test_memory_that_ends_soon_after_a_trim_is_returned_once_more(process: Process) -> None:
    process.size += 300 * MIB
    process.look(share=0.1)
    assert process.trims == 1, "in vain"
    process.free = 290 * MIB
    for _ in range(5):
        process.look(share=0.0001)
    assert process.trims == 2
    process.size += 300 * MIB
    for _ in range(90):
        process.look(share=0.0001)
    assert process.trims == 2, "an idle process does not trim for ever"


def test_a_process_that_works_waits_for_its_end_and_not_for_ever(process: Process) -> None:
    process.size += 300 * MIB
    assert all(process.look(share=0.9) for _ in range(59)), "it is to be looked at again soon"
    assert process.trims == 0
    assert not process.look(share=0.9)
    assert process.trims == 1
    assert process.look(share=0.9)


def test_trims_take_a_thousandth_of_the_time(process: Process) -> None:
    process.size += 300 * MIB
    process.takes = 0.1
    for _ in range(1000):
        process.look(share=0.1)
    assert 9 <= process.trims <= 11
