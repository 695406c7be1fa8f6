"""URL of a store of claims: what is accepted, which permissions it needs, and what a server says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_client import listen, serve_all
from fastn_p2p_client.claims import claims_url
from fastn_p2p_client.claims.claims_url import parse_claims
from fastn_p2p_client.postgres import postgres_url
from fastn_p2p_client.protocol import Protocol, request
from fastn_p2p_client.sync import Server

DATABASE = "postgresql://me@127.0.0.1/claims"


class Work(Protocol):
    @request
    def work(self, number: int) -> int:
        return number


def answer(number: int) -> int:
    return number


def test_permissions_are_those_of_the_server_and_its_files() -> None:
    bucket = parse_claims("tls://a.example,b.example:4223/work?credentials=/home/me/nats.creds&ca=/etc/ca.pem")
    assert set(bucket.permissions().lines()) == {
        "connect a.example:4222",
        "connect b.example:4223",
        "read /home/me/nats.creds",
        "read /etc/ca.pem",
    }
    assert parse_claims(f"{DATABASE}?passfile=/home/me/pass").permissions().lines() == (
        "read /home/me/pass",
        "connect 127.0.0.1:5432",
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("work", "no URL of a store"),
        ("redis://127.0.0.1/work", "no URL of a store"),
        ("nats://127.0.0.1:4222", "names no bucket"),
        ("nats://127.0.0.1:4222/", "names no bucket"),
        ("nats://127.0.0.1:4222/my.bucket", "letters, digits"),
        ("nats://127.0.0.1:4222/a/b", "letters, digits"),
        ("nats://me:hunter2@127.0.0.1/work", "secret"),
        ("nats://127.0.0.1:99999/work", "not a port"),
        ("nats://127.0.0.1/work?token=hunter2", "after the question mark"),
        ("nats://127.0.0.1/work?ca=/a&ca=/b", "each once"),
        ("nats://127.0.0.1/work?credentials=relative", "must be absolute"),
        ("postgresql://me:hunter2@127.0.0.1/db", "contains a password"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_claims(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("make", [lambda: listen("alice"), serve_all, lambda: Server("alice")])
def test_a_server_refuses_claims_that_cannot_be_used(tmp_path: Path, make: object) -> None:
    server = make()  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"claims: .*no URL"):
        server.handle_requests("Work", answer, claims="work")
    with pytest.raises(ValueError, match=r"claims: passfile: .*no such file"):
        server.handle_requests("Work", answer, claims=f"{DATABASE}?passfile={tmp_path}/missing")
    server.handle_requests("Work", answer, claims=DATABASE)
    with pytest.raises(ValueError, match="claims of Work"):
        server.handle_requests("Work", answer, command="other", claims=f"{DATABASE}2")


def test_a_class_may_have_claims() -> None:
    with pytest.raises(ValueError, match=r"claims: .*no URL"):
        serve_all().protocol(Work, claims="work")
    assert serve_all().protocol(Work, claims=DATABASE) is Work


@pytest.mark.parametrize(("url", "extra"), [(DATABASE, "postgres"), ("nats://127.0.0.1/work", "nats")])
def test_without_the_extra_the_error_names_the_command(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (claims_url, postgres_url):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"pip install 'fastn-p2p-client\[{extra}\]'"):
        listen("alice").handle_requests("Work", answer, claims=url)
