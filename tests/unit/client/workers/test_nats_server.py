"""Addresses and credentials of NATS servers."""

from __future__ import annotations

import pathlib

import pytest

from fastn_p2p_client.nats_client.nats_server import InvalidServer, NatsServer

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("nats://a.example", ["a.example:4222"]),
        ("nats://127.0.0.1:1", ["127.0.0.1:1"]),
        ("tls://[::1]:4223/", ["[::1]:4223"]),
        ("nats://a:1, nats://b:2", ["a:1", "b:2"]),
    ],
)
def test_addresses_of_a_url(url: str, addresses: list[str]) -> None:
    assert NatsServer(url).addresses() == addresses
    assert NatsServer(url).needs_tls == url.startswith("tls")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "Write nats://HOST"),
        ("a:4222", "Write nats://a:4222"),
        ("http://a", "Write nats://HOST:PORT"),
        ("nats://user:password@a", "write it into a file"),
        ("nats://a:0", "not a port"),
        ("nats://a:99999", "not a port"),
        ("nats://a/path", "is not the URL"),
        ("nats://a\r\nPUB", "is not the URL"),
        ("nats://a,,nats://b", "is not the URL"),
    ],
)
def test_other_urls_are_refused_with_what_to_write(url: str, words: str) -> None:
    with pytest.raises(InvalidServer, match=words) as caught:
        NatsServer(url).addresses()
    assert "password@" not in str(caught.value)


def options(path: pathlib.Path, text: str, mode: int = 0o600) -> dict[str, object]:
    path.write_text(text)
    path.chmod(mode)
    found = NatsServer("nats://a", str(path)).options()
    del found["servers"]
    return found


def test_each_kind_of_credentials(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    assert options(file, 'user = "u"\npassword = "p"') == {"user": "u", "password": "p"}
    assert options(file, 'token = "t"') == {"token": "t"}
    assert options(file, f"{SEED}\n") == {"nkeys_seed_str": SEED}
    assert options(file, "-----BEGIN NATS USER JWT-----\nx\n") == {"user_credentials": str(file)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610])
def test_a_file_that_others_can_read_is_refused(tmp_path: pathlib.Path, mode: int) -> None:
    with pytest.raises(InvalidServer, match="Run: chmod 600"):
        options(tmp_path / "file", 'token = "t"', mode)


@pytest.mark.parametrize(
    "text", ["", "secret", 'user = ""', 'token = "t"\nuser = "u"', 'tokn = "t"', "token = 1", "\0"]
)
def test_other_content_is_refused_without_showing_it(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(InvalidServer, match="is not a file with credentials") as caught:
        options(tmp_path / "file", text)
    assert "secret" not in str(caught.value)


def test_files_that_cannot_be_used(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "bytes").chmod(0o600)
    for path, words in ((tmp_path, "is a directory"), (tmp_path / "none", "no such file"), (tmp_path / "bytes", "no")):
        with pytest.raises(InvalidServer, match=words):
            NatsServer("nats://a", str(path)).check()
    with pytest.raises(InvalidServer, match="no such file"):
        NatsServer("nats://a", ca=str(tmp_path / "none")).check()
    with pytest.raises(InvalidServer, match="has no certificates"):
        NatsServer("nats://a", ca=str(tmp_path / "bytes")).check()
    with pytest.raises(InvalidServer, match="not absolute"):
        NatsServer("nats://a", "file").check()
