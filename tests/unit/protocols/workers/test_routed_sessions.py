"""Addresses at which workers reach a daemon for sessions."""

from __future__ import annotations

import pytest

from fastn_p2p.protocols.workers.routed_sessions import problem_of
from fastn_p2p_client.worker_token import parse_address


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1"])
def test_a_listener_at_every_address_is_no_place_to_connect_to(address: str) -> None:
    assert "--workers-address HOST:PORT" in problem_of(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[2001:db8::1]:1", "daemon.example.org:4433"])
def test_addresses_of_one_machine_are_fine(address: str) -> None:
    assert problem_of(address) == ""


@pytest.mark.parametrize("address", ["", "host", ":1", "host:0", "host:65536", "host:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no HOST:PORT"):
        parse_address(address)
