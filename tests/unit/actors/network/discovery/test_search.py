"""The text about a fruitless search for a peer."""

from __future__ import annotations

from fastn_p2p_actors.network.discovery.record_finder import FoundRecord, Lookup, SourceResult
from fastn_p2p_actors.network.discovery.search import Search
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress


def test_names_addresses_result_and_duration_of_each_attempt() -> None:
    search = Search(100.0)
    address = EndpointAddress(b"1" * 32, ("https://relay.example/",), ("192.0.2.1:1", "[2001:db8::1]:1"))
    search.begin(address, 100.0).fail("no answer to the handshake", 110.0)
    search.begin(EndpointAddress(b"2" * 32, (), ("192.0.2.2:2",)), 110.0)
    assert search.words(112.5) == (
        "tried 192.0.2.1:1, [2001:db8::1]:1 and relay https://relay.example/ for 10.0 s: no answer to the handshake; "
        "tried 192.0.2.2:2 for 2.5 s: no answer yet"
    )
    assert search.seconds(112.5) == 12.5


def test_says_that_no_address_was_found() -> None:
    search = Search(100.0)
    assert search.words(103.0) == "its addresses were looked for during 3.0 s, and none was found"
    search.begin(EndpointAddress(b"1" * 32, (), ()), 103.0)
    assert "no address is known" in search.words(104.0)
    search.local_problem = lambda: "this machine has no network"
    assert search.words(104.0).startswith("this machine has no network; tried its endpoint")


async def test_says_what_each_source_answered() -> None:
    search = Search(0.0)
    answers = [SourceResult(name) for name in ("LAN", "one", "two", "three")]
    search.lookup = Lookup(answers)
    answers[0].seconds = 0.5
    answers[1].records, answers[1].seconds = [FoundRecord(7, 1)], 0.1
    answers[2].problem = "no answer within 10 s"
    assert search.words(2.0).endswith(
        "asked LAN (it does not know the peer), one (it knows the peer), two (no answer within 10 s), "
        "three (no answer yet)"
    )


def test_stays_short_however_many_attempts() -> None:
    search = Search(0.0)
    for _ in range(100):
        address = EndpointAddress(b"1" * 32, ("https://relay.example/",) * 20, ("192.0.2.1:1",) * 50)
        search.begin(address, 0.0).fail("no answer", 1.0)
    words = search.words(100.0)
    assert "and 46 more" in words
    assert "and 96 more attempts" in words
    assert len(words) < 2000
