"""Due times: the earliest keys come first, and each key has one time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.network.discovery.due_times import DueTimes


def test_earliest_keys_are_taken_first_and_once() -> None:
    times = DueTimes()
    for key, time in ((b"c", 3.0), (b"a", 1.0), (b"b", 2.0), (b"later", 9.0)):
        times.set(key, time)
    assert sorted(times.due(3.0)) == [b"a", b"b", b"c"]
    assert times.remove_due(3.0, 2) == [b"a", b"b"]
    assert times.remove_due(3.0, 2) == [b"c"]
    assert times.remove_due(3.0, 2) == []
    assert times.next() == 9.0


def test_later_time_replaces_an_earlier_one() -> None:
    times = DueTimes()
    times.set(b"a", 1.0)
    times.set(b"a", 5.0)
    times.set(b"b", 2.0)
    times.remove(b"b")
    times.remove(b"nobody")
    assert times.next() == 5.0
    assert times.remove_due(4.0, 9) == []
    assert times.remove_due(5.0, 9) == [b"a"]
    assert len(times) == 0
    assert times.next() is None


def test_key_whose_time_is_set_often_takes_no_more_room() -> None:
    times = DueTimes()
    for number in range(10_000):
        times.set(b"a", float(number))
    assert len(times._heap) < 200
    assert times.remove_due(10_000.0, 9) == [b"a"]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 9) | st.none())), st.floats(0, 9))
def test_it_is_a_dictionary_in_the_order_of_its_values(changes: list[tuple[bytes, float | None]], now: float) -> None:
    times, expected = DueTimes(), dict[bytes, float]()
    for key, time in changes:
        if time is None:
            times.remove(key)
            expected.pop(key, None)
        else:
            times.set(key, time)
            expected[key] = time
    due = sorted((time, key) for key, time in expected.items() if time <= now)
    assert times.next() == min(expected.values(), default=None)
    assert [(expected[key], key) for key in times.remove_due(now, 9)] == due
    assert len(times) == len(expected) - len(due)
