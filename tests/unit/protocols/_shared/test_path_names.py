"""Names from a peer: what is let near a file system, and which two names are too much alike."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.protocols._shared.path_names import (
    MAX_DEPTH,
    MAX_PART,
    MAX_PATH,
    UnsafeName,
    check_component,
    collision_key,
    is_safe,
    join_path,
    printable,
)
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.file_system.path_set import PathSet
from fastn_p2p.protocols.files.file_system.safe_paths import checked_name, parts_of

SAFE = ["a", "report.pdf", ".profile", "...", "a b", "ü" * 127, "x" * 255, "日本語", "12:30 *?.txt", "CON", "-rf", "~"]
UNSAFE = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "a\\b",
    "\0",
    "a\nb",
    "\x1b[31m",
    "\x7f",
    "\x9b31m",
    "a\u2028b",
    "\u202egpj.exe",
    "a\u2066b",
    "\udcff",
    "\ud800",
    "x" * 256,
    "x" * 300,
    "ü" * 128,
    ".fastn-0123.part",
]


@pytest.mark.parametrize("name", SAFE)
def test_safe_names_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    assert check_component(name) == name
    assert parts_of(f"directory/{name}") == ("directory", name)
    (tmp_path / name).write_bytes(b"")  # the file system agrees


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UnsafeName) as caught:
        check_component(name)
    assert str(caught.value).isprintable()
    assert not is_safe(name)
    with pytest.raises(FileError) as error:
        checked_name(name)
    assert (error.value.kind, error.value.message) == ("UnsafeName", str(caught.value))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "/".join("a" * (MAX_DEPTH + 1)),
        "/".join(["x" * 255] * 17),
        "a/b\0c",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(FileError, match=r"safe name|path has more than"):
        parts_of(path)


def test_the_empty_path_is_the_directory_itself() -> None:
    assert parts_of("") == ()
    assert join_path("", "a", "", "b/c") == "a/b/c"


@given(st.text() | st.text("ab./\\\0\n~", max_size=20))
def test_every_accepted_path_stays_below_the_directory(path: str) -> None:
    try:
        parts = parts_of(path)
    except FileError:
        return
    assert "/".join(parts) == path
    assert len(path.encode()) <= MAX_PATH
    for part in parts:
        assert part not in ("", ".", "..")
        assert not {"/", "\\", "\0"} & set(part)
        assert len(part.encode()) <= MAX_PART
        assert not any(unicodedata.category(each) == "Cc" for each in part)
    assert os.path.normpath(os.path.join("/root", path)) == "/".join(["/root", *parts])  # noqa: PTH118


@given(st.binary(max_size=50))
def test_any_name_of_this_machine_can_be_shown(name: bytes) -> None:
    text = printable(os.fsdecode(name))
    assert text.isprintable()
    text.encode()


# ── names that are too much alike ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("README", "readme"),
        ("straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAF\u00c9", "cafe\u0301"),
        ("\u212b", "\u00e5"),
        ("a/b", "A/c"),
        ("a/b/c", "a/B"),
        ("x/caf\u00e9/1", "x/cafe\u0301/2"),
    ],
)
def test_names_that_differ_only_by_case_or_spelling_collide(one: str, other: str) -> None:
    sightings = PathSet()
    assert sightings.add(one)
    with pytest.raises(FileError) as caught:
        sightings.add(other)
    assert caught.value.kind == "Collision"
    assert caught.value.path == other


def test_a_path_is_new_once_and_a_directory_is_new_after_what_is_in_it() -> None:
    sightings = PathSet()
    assert sightings.add("a/b/c")
    assert not sightings.add("a/b/c")
    assert sightings.add("a/b", directory=True)
    assert not sightings.add("a/b", directory=True)
    assert sightings.add("a", directory=True)
    assert sightings.add("a/x", directory=True)
    assert sightings.add("a/x/file")


@given(st.lists(st.text("aAbB/é", min_size=1, max_size=6).filter(lambda path: all(path.split("/"))), max_size=60))
def test_sightings_remember_what_a_dictionary_would(paths: list[str]) -> None:
    sightings = PathSet()
    known: dict[str, str] = {}
    for path in paths:
        prefixes = [path[:end] for end, each in enumerate(path) if each == "/"] + [path]
        collides = any(known.get(collision_key(prefix), prefix) != prefix for prefix in prefixes)
        expected = path not in known.values()
        try:
            assert sightings.add(path) == expected
            assert not collides
        except FileError:
            assert collides
            return
        known.update({collision_key(prefix): prefix for prefix in prefixes})


def test_many_paths_take_little_memory() -> None:
    sightings = PathSet()
    for number in range(100_000):
        assert sightings.add(f"directory/{number}")
    assert not sightings.add("directory/77777")
    assert len(sightings) == 100_001
    assert sightings.memory <= 64 * len(sightings)
