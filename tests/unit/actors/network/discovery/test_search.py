"""The text about a fruitless search for a peer."""

from __future__ import annotations

from fastn_p2p_actors.network.discovery.search import Search
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress


def test_names_addresses_result_and_duration_of_each_attempt() -> None:
    search = Search(100.0)
    search.begin(EndpointAddress(b"1" * 32, ("https://relay.example/",), ("192.0.2.1:1", "[2001:db8::1]:1")), 100.0)
    search.failed("no answer to the handshake", 110.0)
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


def test_stays_short_however_many_attempts() -> None:
    search = Search(0.0)
    for _ in range(100):
        search.begin(EndpointAddress(b"1" * 32, ("https://relay.example/",) * 20, ("192.0.2.1:1",) * 50), 0.0)
        search.failed("no answer", 1.0)
    words = search.words(100.0)
    assert "and 46 more" in words
    assert "and 96 more endpoints" in words
    assert len(words) < 2000
