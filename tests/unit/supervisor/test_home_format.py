"""Format of a home: new homes have it, older ones are brought to it over any crash, newer ones are rejected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client.errors import HomeUnusable, StorageFailed
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.home_format import FORMAT, STEPS, Migration, check_format, migrate
from fastn_p2p_supervisor.home_lock import HomeLock
from tests.support.stub_daemon import short_path

CHANGING = ("open", "write", "fsync", "replace", "unlink", "mkdir")
"""Functions of ``os`` that change files, or make a change last."""


class Killed(BaseException):
    """The end of the process: no handler of errors runs after it."""


@pytest.fixture
def home() -> Iterator[Home]:
    with short_path() as path:
        yield Home(path)


def write(home: Home, files: dict[str, str]) -> None:
    for name, text in files.items():
        (home.path / name).parent.mkdir(parents=True, exist_ok=True)
        (home.path / name).write_text(text)


def read(home: Home) -> dict[str, str]:
    """Return the content of each file, without those that a crash may leave behind."""
    files = (each for each in home.path.rglob("*") if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(home.path)): each.read_text() for each in files}


def double(migration: Migration) -> None:
    """A step that must not be made twice on the same content: what it has made tells that it is done."""
    for path in migration.find("identities/*/identity.json"):
        text = path.read_text()
        if not text.startswith("new "):
            migration.replace(path, f"new {text}".encode())
    for path in migration.find("peers/*.old"):
        migration.remove(path)


def number(migration: Migration) -> None:
    migration.replace(migration.home / "peers/list.json", str(len(migration.find("identities/*/*.json"))).encode())


OLD = {"identities/alice/identity.json": "alice", "peers/a.old": "a"}
NEW = {
    "format": "2\n",
    "identities/alice/identity.json": "new alice",
    "peers/list.json": "1",
    "migrated/1/peers/list.json.absent": "",
    **{f"migrated/0/{name}": text for name, text in OLD.items()},
}


def test_a_new_home_has_the_format_of_this_version(home: Home) -> None:
    HomeLock.acquire(home).release()
    assert home.format_file.read_text() == f"{FORMAT}\n"
    assert not (home.path / "migrated").exists()
    assert migrate(home) is False


def test_a_home_without_a_number_is_brought_forward_and_keeps_what_was_changed(home: Home) -> None:
    write(home, {"run/tree.json": "{}", "run/identity-alice.deaths": "3", "identities/alice/identity.json": "{}"})
    HomeLock.acquire(home).release()
    found = read(home)
    assert found.pop("lock") == ""
    assert found == {
        "format": f"{FORMAT}\n",
        "identities/alice/identity.json": "{}",
        "migrated/0/run/tree.json": "{}",
        "migrated/0/run/identity-alice.deaths": "3",
    }
    assert len(STEPS) == FORMAT


def test_only_the_missing_steps_are_made(home: Home) -> None:
    write(home, {**OLD, "format": "1\n"})
    assert migrate(home, (double, number)) is True
    made = {"peers/list.json": "1", "migrated/1/peers/list.json.absent": ""}
    assert read(home) == {**OLD, **made, "format": "2\n"}


def test_links_lead_no_step_to_other_files(home: Home, tmp_path: Path) -> None:
    write(home, OLD)
    (tmp_path / "identity.json").write_text("of somebody else")
    (home.identities / "carol").symlink_to(tmp_path)
    (home.identities / "dan").mkdir()
    (home.identities / "dan" / "identity.json").symlink_to(tmp_path / "identity.json")
    migrate(home, (double,))
    assert (tmp_path / "identity.json").read_text() == "of somebody else"


@pytest.mark.parametrize("text", ["3\n", "99999"])
def test_a_newer_home_is_rejected_and_left_as_it_is(home: Home, text: str) -> None:
    write(home, {**OLD, "format": text})
    for attempt in (
        lambda: check_format(home),
        lambda: migrate(home, (double, number)),
        lambda: HomeLock.acquire(home),
    ):
        with pytest.raises(HomeUnusable) as refused:
            attempt()
        assert f"format {int(text)}, of a newer version of fastn-p2p; this version has format" in str(refused.value)
        assert "Install the newer version again" in str(refused.value)
    left = read(home)
    assert left.pop("lock").strip() == str(os.getpid())
    assert left == {**OLD, "format": text}
    home.format_file.write_text(f"{FORMAT}\n")
    HomeLock.acquire(home).release()  # nothing holds the lock


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5", "1" * 40])
def test_a_damaged_number_is_rejected_with_what_to_do(home: Home, text: str) -> None:
    write(home, {**OLD, "format": text})
    with pytest.raises(HomeUnusable, match=f"damaged. Write the number .* or {FORMAT} if this version has used"):
        HomeLock.acquire(home)
    assert home.format_file.read_text() == text


def test_killed_at_any_moment_the_next_start_completes_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call that changes files. The copies are those of before the first attempt, however often it is killed."""
    moments = 0
    killed = True
    while killed:
        moments += 1
        with short_path() as path:
            own = Home(path)
            write(own, OLD)
            killed = kill_at(moments, monkeypatch, lambda own=own: migrate(own, (double, number)))  # type: ignore[misc]
            assert (own.path / "migrated/0/peers/a.old").exists() or (own.path / "peers/a.old").exists()
            kill_at(3, monkeypatch, lambda own=own: migrate(own, (double, number)))  # type: ignore[misc]
            migrate(own, (double, number))
            assert read(own) == NEW
    assert moments > 40


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> bool:
    """Run it until the given call of a function that changes files. Return false if there are fewer."""
    left = number

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # the disk is not what is killed
        for name in CHANGING:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


def test_a_full_disk_is_said_and_the_next_start_tries_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, OLD)

    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageFailed, match=r"the disk is full\. Nothing was changed"):
            migrate(home, (double, number))
    assert read(home) == OLD
    migrate(home, (double, number))
    assert read(home) == NEW


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_a_home_that_keeps_its_owner_out_is_named_with_the_command_that_opens_it(home: Home) -> None:
    home.path.chmod(0)
    try:
        with pytest.raises(HomeUnusable, match=re.escape(f"chmod u+rwx {home.path}")):
            check_format(home)
    finally:
        home.path.chmod(0o700)
