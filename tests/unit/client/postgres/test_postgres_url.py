"""URL of a database in a config: what is accepted, which permissions it needs, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_client.postgres.postgres_url import parse_url


def test_a_url_needs_its_address_and_its_files(tmp_path: Path) -> None:
    url = f"postgresql://me@db.example:6000/mail?sslmode=verify-full&sslrootcert={tmp_path}/ca&passfile={tmp_path}/pass"
    found = parse_url(url)
    assert str(found) == "postgresql://me@db.example:6000/mail"
    assert set(found.permissions().lines()) == {
        "connect db.example:6000",
        f"read {tmp_path}/ca",
        f"read {tmp_path}/pass",
    }
    assert found.options("test")["require_auth"] == "scram-sha-256"
    assert parse_url("postgresql://me@127.0.0.1/mail").options("test")["require_auth"] == "none"
    assert parse_url("postgresql://me@[::1]/mail").permissions().lines() == ("connect [::1]:5432",)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mail.sqlite", "no URL of a database"),
        ("mysql://me@127.0.0.1/db", "no URL of a database"),
        ("postgresql://me@127.0.0.1:port/db", "no URL of a database"),
        ("postgresql://me:hunter2@127.0.0.1/db", "contains a password"),
        ("postgresql://me:hun@ter2@127.0.0.1/db", "contains a password"),
        ("postgresql://me@127.0.0.1/db?password=hunter2", "contains a password"),
        ("postgresql://me@127.0.0.1/db?options=-chunter2", "after the question mark"),
        ("postgresql://me@127.0.0.1/db?passfile=/a&passfile=/b", "each once"),
        ("postgresql:///db", "names no host"),
        ("postgresql://me@%2Frun%2Fpostgresql/db", "names no host"),
        ("postgresql://127.0.0.1/db", "lacks a user"),
        ("postgresql://me@127.0.0.1", "lacks a database"),
        ("postgresql://me@127.0.0.1/db?passfile=relative", "must be absolute"),
        ("postgresql://me@db.example/db", "say whether the connection is encrypted"),
        ("postgresql://me@db.example/db?sslmode=prefer", "say whether the connection is encrypted"),
        ("postgresql://me@db.example/db?sslmode=verify-full", "certificate authority"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_url(url)
    assert "hunter" not in str(refused.value)
    assert "ter2" not in str(refused.value)


def test_a_passfile_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    url = f"postgresql://me@127.0.0.1/db?passfile={file}"
    with pytest.raises(ValueError, match="no such file"):
        parse_url(url).check_files("fastn-p2p")
    file.touch(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        parse_url(url).check_files("fastn-p2p")
    file.chmod(0o600)
    parse_url(url).check_files("fastn-p2p")
