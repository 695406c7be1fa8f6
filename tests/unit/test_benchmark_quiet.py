"""The benchmark waits until the machine is quiet, and not for ever."""

from __future__ import annotations

from itertools import count

from tests.benchmarks.quiet import idle_share, processor_times, wait_until_quiet


def test_time_that_waits_for_a_disk_is_idle_and_time_that_others_take_is_not() -> None:
    before = [0, 0, 0, 0, 0, 0, 0, 0]
    assert idle_share(before, [10, 0, 0, 60, 30, 0, 0, 0]) == 0.9
    assert idle_share(before, [0, 0, 0, 60, 0, 0, 0, 40]) == 0.6  # of another virtual machine
    assert idle_share(processor_times(), processor_times()) <= 1


async def test_it_waits_for_the_end_of_a_load() -> None:
    looks = count()

    def times() -> list[int]:
        look = next(looks)
        return [min(look, 4) * 100, 0, 0, look * 100, 0, 0, 0, 0]

    quiet = await wait_until_quiet(timeout=60, window=0.001, times=times)
    assert quiet.is_enough
    assert next(looks) == 6, "two looks each at 50 %, 50 % and 100 %"


async def test_a_machine_that_never_is_quiet_is_reported() -> None:
    looks = count()
    quiet = await wait_until_quiet(timeout=0.01, window=0.001, times=lambda: [next(looks) * 100, 0, 0, 0, 0, 0, 0, 0])
    assert not quiet.is_enough
    assert quiet.idle == 0
    assert quiet.waited >= 0.01
