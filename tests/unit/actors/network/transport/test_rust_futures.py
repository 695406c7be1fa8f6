"""Polling of the binding's futures: no wake-up is lost, whenever it comes, and with each kind of callback."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import random
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from fastn_p2p_actors.network.transport.rust_futures import Poller

READY: Final = 0
WOKEN: Final = 1
DEADLINE: Final = 60


class ScriptedFuture:
    """Future with the scheduler of the binding. A script says what happens in iroh's thread at each poll.

    Args:
        before: called at the beginning of a poll, with its number from 1 on; what it does is seen by this poll.
        after: called at the end of a poll.
        displaced_code: code of a displaced callback; None if the binding does not call it.
    """

    def __init__(
        self,
        before: Callable[[ScriptedFuture, int], object] = lambda _future, _number: None,
        after: Callable[[ScriptedFuture, int], object] = lambda _future, _number: None,
        displaced_code: int | None = READY,
    ) -> None:
        self.is_ready = False
        self.polls = 0
        self.freed = 0
        self._before = before
        self._after = after
        self._displaced_code = displaced_code
        self._lock = threading.Lock()
        self._is_woken = False
        self._registered: tuple[Any, int] | None = None

    def poll(self, _handle: object, callback: Any, number: int) -> None:
        self.polls += 1
        self._before(self, self.polls)
        if self.is_ready:
            callback(number, READY)
        else:
            self._store(callback, number)
        self._after(self, self.polls)

    def _store(self, callback: Any, number: int) -> None:
        with self._lock:
            displaced = self._registered
            if self._is_woken:
                self._is_woken, self._registered = False, None
            else:
                self._registered = callback, number
                callback = None
        if callback is not None:
            callback(number, WOKEN)
        elif displaced is not None and self._displaced_code is not None:
            displaced[0](displaced[1], self._displaced_code)

    def finish(self) -> None:
        """Make the future ready, without a wake-up."""
        self.is_ready = True

    def wake(self) -> None:
        with self._lock:
            registered, self._registered = self._registered, None
            self._is_woken = registered is None
        if registered is not None:
            registered[0](registered[1], WOKEN)

    def finish_and_wake(self) -> None:
        self.finish()
        self.wake()

    def free(self, _handle: object) -> None:
        self.freed += 1
        with self._lock:
            registered, self._registered = self._registered, None
        if registered is not None:
            registered[0](registered[1], READY)

    async def run(self, poller: Poller) -> None:
        """Poll until it is ready, as the runner does."""
        waker = poller.waker()
        try:
            if not poller.poll(self.poll, 1, waker):
                async with asyncio.timeout(DEADLINE):
                    await poller.wait(self.poll, 1, waker)
        finally:
            self.free(1)
            poller.release(waker)


@pytest.fixture(params=["functions of libc", "Python function"])
async def poller(request: pytest.FixtureRequest) -> Any:
    made = Poller(asyncio.get_running_loop(), fast=request.param == "functions of libc")
    assert made.is_fast is (request.param == "functions of libc")
    yield made
    made.close()


def at(poll: int, *steps: Callable[[ScriptedFuture], object]) -> Callable[[ScriptedFuture, int], None]:
    """Return a script that makes the steps at one poll."""

    def script(future: ScriptedFuture, number: int) -> None:
        if number == poll:
            for step in steps:
                step(future)

    return script


FINISH: Final = ScriptedFuture.finish
WAKE: Final = ScriptedFuture.wake


def later(step: Callable[[ScriptedFuture], object]) -> Callable[[ScriptedFuture], None]:
    """Return the step, made by the event loop."""

    def schedule(future: ScriptedFuture) -> None:
        asyncio.get_running_loop().call_soon(step, future)

    return schedule


def in_a_thread(step: Callable[[ScriptedFuture], object]) -> Callable[[ScriptedFuture], None]:
    """Return the step, made in another thread while the poll goes on."""
    return lambda future: threading.Thread(target=step, args=(future,)).start()


async def test_a_ready_future_is_polled_once_and_takes_no_iteration_of_the_loop(poller: Poller) -> None:
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "another")
    future = ScriptedFuture(before=at(1, FINISH))
    await future.run(poller)
    assert (others, future.polls, future.freed) == ([], 1, 1)


RACES: Final = {
    "before the first poll, seen by it": {"before": at(1, WAKE, FINISH)},
    "woken before the first poll, ready at the second": {"before": at(2, FINISH), "after": at(1, WAKE)},
    "woken in the first poll": {"before": at(1, WAKE), "after": at(1, FINISH, WAKE)},
    "between both polls": {"after": at(1, FINISH, WAKE)},
    "ready at the second poll, woken after it": {"before": at(2, FINISH), "after": at(2, later(WAKE))},
    "ready between the polls, woken after the second": {"after": at(1, FINISH, later(WAKE))},
    "woken between the polls, ready later": {"after": at(1, WAKE, later(ScriptedFuture.finish_and_wake))},
    "right after the second poll": {"after": at(2, FINISH, WAKE)},
    "after the second poll, later": {"after": at(2, later(ScriptedFuture.finish_and_wake))},
    "in another thread, during the first poll": {"before": at(1, in_a_thread(ScriptedFuture.finish_and_wake))},
    "in another thread, after the first poll": {"after": at(1, in_a_thread(ScriptedFuture.finish_and_wake))},
    "in another thread, after the second poll": {"after": at(2, in_a_thread(ScriptedFuture.finish_and_wake))},
    "woken for nothing three times": {
        "after": lambda future, number: (
            later(WAKE)(future) if number < 6 else later(ScriptedFuture.finish_and_wake)(future)
        )
    },
    "wakes itself in a hundred polls": {
        "before": lambda future, number: future.wake() if number < 100 else future.finish_and_wake()
    },
}


@pytest.mark.parametrize("race", RACES)
async def test_no_wake_up_is_lost(poller: Poller, race: str) -> None:
    if not poller.is_fast and "second poll" in race:
        pytest.skip("a Python function needs one poll")
    future = ScriptedFuture(**RACES[race])  # type: ignore[arg-type]  # the scripts of one race
    await future.run(poller)
    assert future.is_ready
    assert future.freed == 1


async def test_a_wake_up_for_an_ended_future_does_not_end_the_next_one(poller: Poller) -> None:
    """It comes on the waker that the next future uses."""
    ended = ScriptedFuture()
    running = asyncio.ensure_future(ended.run(poller))
    await asyncio.sleep(0)
    late, number = ended._registered or (None, 0)
    assert late is not None
    ended._registered = None  # iroh's thread has taken it, and is about to make it
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    polled_again = asyncio.Event()
    following = ScriptedFuture(after=lambda _future, poll: polled_again.set() if poll > 2 else None)
    running = asyncio.ensure_future(following.run(poller))
    await asyncio.sleep(0)
    late(number, WOKEN)
    if poller.is_fast:
        async with asyncio.timeout(DEADLINE):
            await polled_again.wait()
    assert not running.done()
    following.finish_and_wake()
    await running


async def test_a_future_that_wakes_itself_without_end_lets_other_work_run(poller: Poller) -> None:
    future = ScriptedFuture(before=lambda future, _number: future.wake())
    proved = ScriptedFuture(after=lambda future, _number: later(ScriptedFuture.finish_and_wake)(future))
    await proved.run(
        poller
    )  # the binding displaces, so the self-waking future is not taken for a sign that it does not
    running = asyncio.ensure_future(future.run(poller))
    for _ in range(10):
        await asyncio.sleep(0)
    future.finish()
    await running  # does not wait for ever


@pytest.mark.parametrize("code", [None, WOKEN])
async def test_another_version_of_the_binding_gets_a_python_function(code: int | None) -> None:
    """A binding that does not call displaced callbacks, or with another code, is noticed at its first future."""
    poller = Poller(asyncio.get_running_loop())
    future = ScriptedFuture(displaced_code=code)
    running = asyncio.ensure_future(future.run(poller))
    await asyncio.sleep(0)
    assert not poller.is_fast
    future.finish_and_wake()
    await running
    poller.close()


@pytest.mark.parametrize("function", ["pthread_barrierattr_setpshared", "eventfd_write"])
@pytest.mark.parametrize("fault", ["missing", "other"])
async def test_another_libc_gets_a_python_function(monkeypatch: pytest.MonkeyPatch, function: str, fault: str) -> None:
    class Libc:
        def __init__(self, _name: object) -> None:
            self._real = real(None)

        def __getattr__(self, name: str) -> Any:
            if name != function:
                return getattr(self._real, name)
            if fault == "missing":
                raise AttributeError(name)
            return self._real.abs

    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    assert not Poller(asyncio.get_running_loop()).is_fast


@pytest.fixture
def seed() -> random.Random:
    value = random.randrange(2**32)
    print(f"seed {value}")
    return random.Random(value)


async def test_a_thousand_futures_that_threads_wake_all_finish(poller: Poller, seed: random.Random) -> None:
    """Each is woken for nothing some times, by threads that do not wait for the polls."""
    futures = [ScriptedFuture() for _ in range(1000)]
    wakes = [future.wake for future in futures for _ in range(3)]
    seed.shuffle(wakes)
    last = [future.finish_and_wake for future in futures]
    seed.shuffle(last)
    steps = itertools.chain(wakes, last)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                step = next(steps, None)
            if step is None:
                return
            step()

    running = [asyncio.ensure_future(future.run(poller)) for future in futures]
    await asyncio.sleep(0)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*running)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert all(future.freed == 1 for future in futures)
