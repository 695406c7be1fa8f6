"""Parsing of service addresses."""

import pytest

from fastn_p2p.protocols._shared.service_address import InvalidAddress, ServiceAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", ServiceAddress("127.0.0.1", 8000)),
        ("localhost:1", ServiceAddress("localhost", 1)),
        ("db.internal:65535", ServiceAddress("db.internal", 65535)),
        ("[::1]:80", ServiceAddress("::1", 80)),
        ("[fe80::1%lo]:80", ServiceAddress("fe80::1%lo", 80)),
        ("unix:/run/web.sock", ServiceAddress("", 0, "/run/web.sock")),
        ("unix:here.sock", ServiceAddress("", 0, "here.sock")),
        ("unix:/a:b", ServiceAddress("", 0, "/a:b")),
    ],
)
def test_an_address_and_back(text: str, address: ServiceAddress) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        ("8000", "Write 127.0.0.1:8000"),
        (":8000", "Write 127.0.0.1:8000"),
        ("::1:80", "in brackets"),
        ("[]:80", "no host"),
        ("[localhost]:80", "not an IPv6 address"),
        ("[::1]", "has no port"),
        ("a b:80", "not a host"),
        ("a\0b:80", "not a host"),
        ("x" * 256 + ":80", "not a host"),
        ("localhost:", "not a port"),
        ("localhost:http", "'http' is not a port"),
        ("localhost:0", "from 1 to 65535"),
        ("localhost:65536", "from 1 to 65535"),
        ("localhost:-1", "not a port"),
        ("localhost:٣", "not a port"),
        ("localhost:" + "9" * 5000, "not a port"),
        ("/run/web.sock", "unix:PATH"),
        ("http://localhost:80", "unix:PATH"),
        ("unix:", "needs the path"),
        ("unix:a\0b", "needs the path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
    ],
)
def test_rejects_invalid_addresses_with_advice(text: str, words: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_address(text)
    assert words in str(caught.value)


def test_port_0_is_for_listening() -> None:
    assert parse_address("127.0.0.1:0", any_port=True).port == 0
    with pytest.raises(InvalidAddress):
        parse_address("127.0.0.1:0")
