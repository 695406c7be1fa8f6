"""Words that complete a command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.cli import main
from fastn_p2p.cli.command_groups import PROGRAM_GROUP, CommandGroup
from fastn_p2p.cli.completion import home_names, remote_paths, shells
from fastn_p2p.cli.plain_arguments import declared_parameters

BREAKS = " \t\n\"'@><=;|&(:"
"""COMP_WORDBREAKS of bash."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with names in it, and no daemon."""
    monkeypatch.setenv("FASTN_HOME", str(tmp_path))
    monkeypatch.setenv("FASTN_TRACEBACK", "1")
    for binding in ("alice/protocols/Mail/default", "alice/protocols/FileTransfer/photos", "bob/protocols/Notes/home"):
        (tmp_path / "identities" / binding).mkdir(parents=True)
    offers = tmp_path / "identities/alice/protocols/FileTransfer/photos/offers"
    offers.mkdir()
    for offer, state in (("aa1", "waiting"), ("aa2", "finished"), ("ab3", "accepted")):
        (offers / f"{offer}.json").write_text(json.dumps({"state": state}))
    peers = tmp_path / "peers"
    peers.mkdir()
    for peer in ("carol", "cai", "dave"):
        (peers / f"{peer}.json").write_text("{}")
    (peers / ".groups.json").write_text('{"groups": {"friends": [], "family": []}}')
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/slots.json").write_text('{"slots": [{"name": "passphrase"}, {"name": "paper"}]}')
    return tmp_path


def completed(capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """Return the kind and the words, as zsh gets them, for a line whose last word is completed."""
    assert main(["__complete", "zsh", *line.split(" ")]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("identity-online ", "words alice bob"),
        ("ticket b", "words bob"),
        ("call ca", "words cai carol"),
        ("call al", "words alice"),
        ("peer rename ", "words cai carol dave"),
        ("peer group add friends carol ", "words cai dave"),
        ("peer group add f", "words family friends"),
        ("call carol Echo --as ", "words alice bob"),
        ("call carol Echo --as=a", "words --as=alice"),
        ("call alice ", "words FileTransfer Mail"),
        ("protocol stop bob ", "words Notes"),
        ("protocol stop bob Notes ", "words home"),
        ("remove-protocol alice --protocol FileTransfer --instance ", "words photos"),
        ("add-protocol bob --protocol Fi", "words FileTransfer"),
        ("add-protocol bob --allow gr", "words group:family group:friends"),
        ("add-protocol bob --allow peer", "words peers"),
        ("add-protocol bob --config @", "files"),
        ("invite create bob --for ", "words Notes Notes/home"),
        ("invite create alice --for Mail,F", "words Mail,FileTransfer Mail,FileTransfer/photos"),
        ("files accept --instance photos ", "words aa1 ab3"),
        ("files offers --instance photos ab", "words ab3"),
        ("vault remove-slot ", "words paper passphrase"),
        ("vault unlock --passphrase-file ", "files"),
        ("files get carol x --to ", "directories"),
        ("files put carol ", "files"),
        ("--home ", "directories"),
        ("--home /nowhere identity-online ", "words"),
        ("identity-online --home /nowhere ", "words"),
        ("daemon --network l", "words lan local"),
        ("config get network.r", "words network.relays"),
        ("pair tun", "words tuna tundra tune tunnel"),
        ("pair tunnel bundle soni", "words sonic"),
        ("pair ali", "words alice align"),
        ("completion z", "words zsh"),
        ("identity-o", "words identity-offline identity-online"),
        ("peer group ", "words add create delete list remove"),
        ("files ls --", "words --as --help --home --identity --instance --json --quiet"),
        ("files ls --json --j", "words"),
        ("--quiet files --quiet ls --quie", "words --quiet"),
        ("invite --for No", "words Notes Notes/home"),
        ("nonsense ", "words"),
        ("call nobody Echo default too-many ", "words"),
    ],
)
def test_a_word_is_completed(home: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str) -> None:
    assert completed(capsys, f"fastn-p2p {line}") == expected.split()


def commands(group: CommandGroup, *path: str) -> Iterator[tuple[str, ...]]:
    for name, module in group.modules.items():
        inner = getattr(importlib.import_module(module), "GROUP", None)
        yield from commands(inner, *path, name) if inner else [(*path, name)]


@pytest.mark.parametrize("command", list(commands(PROGRAM_GROUP)), ids=" ".join)
def test_every_option_of_every_command_is_completed(
    home: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    group = PROGRAM_GROUP
    for name in command[:-1]:
        group = importlib.import_module(group.modules[name]).GROUP
    declared = declared_parameters(importlib.import_module(group.modules[command[-1]]).run)
    expected = {part for name, each in declared.items() for option in each.options(name) for part in option.split("/")}
    kind, *found = completed(capsys, f"fastn-p2p {' '.join(command)} -")
    assert (kind, set(found)) == ("words", expected | {"--help", "--quiet"})


def test_names_that_would_reach_the_terminal_are_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("e\x1b]0;title\x07", "e\nf", "e\u202ef", "e\u200bf", "e\tf"):
        (home / "peers" / f"{name}.json").write_text("{}")
    assert completed(capsys, "fastn-p2p call e") == ["words"]


def test_damaged_files_have_no_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("peers/.groups.json", "vault/slots.json"):
        for content in (b"", b"[1]", b"{}", b'{"slots": 3, "groups": 4}', b"\xff"):
            (home / file).write_bytes(content)
            completed(capsys, "fastn-p2p vault remove-slot ")
            completed(capsys, "fastn-p2p add-protocol bob --allow ")


def test_errors_are_no_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTN_TRACEBACK", raising=False)
    for arguments in ([], ["bash"], ["bash", "x"], ["fish"], ["other", "x", ""], ["zsh", "fastn-p2p", "--home", "\0"]):
        assert main(["__complete", *arguments]) == 0
        assert capsys.readouterr().err == ""


def test_protocols_are_those_that_the_daemon_finds() -> None:
    from fastn_p2p_actors.installed_protocols import installed

    assert sorted(set(home_names.installed_protocols())) == installed()


def test_completion_imports_neither_typer_nor_the_client(home: Path) -> None:
    import subprocess

    script = "import sys; from fastn_p2p.__main__ import main; main(); print([*sys.modules])"
    for line in ("call ca", "files accept ", "add-protocol bob --protocol ", "new-protocol --", "relay --"):
        done = subprocess.run(
            [sys.executable, "-c", script, "__complete", "zsh", "fastn-p2p", *line.split(" ")],
            capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
        loaded = {name.split(".")[0] for name in eval(done.stdout.splitlines()[-1])}
        assert not {"typer", "click", "asyncio", "json", "importlib_metadata", "zmq", "nacl", "iroh"} & loaded, line


# -- a peer's paths ------------------------------------------------------------------------------------


class Peer:
    """In place of ``Client``: a peer that shares ``entries``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
        self.calls: list[object] = []
        self.page = [{"path": name, "kind": kind} for name, kind in sorted(entries.items())]
        monkeypatch.setattr("fastn_p2p_client.client.Client", lambda home, program: self)

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def call(self, *arguments: object) -> object:
        self.calls.append(arguments)
        return {"entries": self.page}


def test_paths_of_a_peer(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(monkeypatch, **{"photos": "directory", "plan": "file", "pipe": "other", "..": "file", "p/q": "file"})
    assert completed(capsys, "fastn-p2p files get --as alice carol p") == ["words", "photos/", "plan"]
    assert completed(capsys, "fastn-p2p files ls --instance x carol old/ph") == ["words", "old/photos/"]
    request = {"type": "list", "path": "old", "after": "pg\U0010ffff", "limit": remote_paths.PAGE}
    assert peer.calls[1] == (None, "carol", "FileTransfer", "x", request)


def test_a_path_that_would_be_an_option_is_left_out(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Peer(monkeypatch, **{"--to=x": "file", "a": "file"})
    assert completed(capsys, "fastn-p2p files get carol ") == ["words", "a"]


@given(st.text(min_size=1), st.text())
def test_the_page_begins_before_what_is_typed(beginning: str, rest: str) -> None:
    assert remote_paths._just_before(beginning) < beginning + rest


# -- words as a shell writes them -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("p a b", (["a"], "b", "", "")),
        ("p a ", (["a"], "", "", "")),
        ("p  'a b' \"c $d", (["a b"], "c $d", "", '"')),
        ("p '' \"\" x", (["", ""], "x", "", "")),
        ("p a\\ b\\", ([], "a b", "", "")),
        ("p --as=al", ([], "--as=al", "--as=", "")),
        ("p a\\:b:c", ([], "a:b:c", "a:b:", "")),
        ("p 'a:b", ([], "a:b", "", "'")),
        ("p x'a b'/c", ([], "xa b/c", "xa b", "")),
        ('p "a\\$b\\c', ([], "a$b\\c", "", '"')),
        ("p $(touch x) `y", (["$(touch", "x)"], "`y", "", "")),
    ],
)
def test_a_line_is_split_and_nothing_in_it_is_expanded(line: str, expected: tuple[list[str], str, str, str]) -> None:
    assert tuple(shells.split(line, BREAKS)) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_bash_reads_a_word_as_it_was_meant(words: list[str]) -> None:
    """``split`` reads as bash does: the test in real shells shows that."""
    typed = SimpleNamespace(kept="", quote="")
    line = "p " + " ".join(shells._for_bash(word, typed).removesuffix(" ") for word in words)  # type: ignore[arg-type]
    found = shells.split(line, BREAKS)
    assert [*found.before, found.word] == words


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_the_script_is_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert f"fastn-p2p __complete {shell}" in capsys.readouterr().out


def test_few_of_many_identities_are_looked_at_for_their_protocols(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2000):
        (home / f"identities/many-{number:04}/protocols/Mail/default").mkdir(parents=True)
    looked_at = set[Path]()
    entries = home_names._entries

    def note(directory: Path) -> list[str]:
        looked_at.update(each for each in directory.parents if each.parent == home / "identities")
        return entries(directory)

    monkeypatch.setattr(home_names, "_entries", note)
    for line in ("call carol ", "call carol Mail ", "invite create --for "):
        assert len(completed(capsys, f"fastn-p2p {line}")) > 1
        assert len(looked_at) <= 500
        looked_at.clear()
    assert len(completed(capsys, "fastn-p2p call many-")) == 1001, "as many as are offered at most"
    assert not looked_at
