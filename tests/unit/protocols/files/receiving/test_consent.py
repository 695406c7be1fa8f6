"""Consent: everything in an offer is shown, risky names are taken only by name, and little is kept before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastn_p2p.cli import main
from fastn_p2p.protocols._shared.name_risks import Risk, is_named, risks_of
from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.receiving.offer_inbox import MAX_LIST, MAX_LISTS, MAX_WAITING
from tests.support.file_commands import FileCommands
from tests.support.file_directories import OfferInbox, SharedDirectory
from tests.support.file_peers import make_files, snapshot

RISKY: list[tuple[str, int, list[Risk]]] = [
    ("report.pdf", 0o644, []),
    ("a/b c/日本語.txt", 0o600, []),
    ("command", 0o644, []),
    ("service/notes", 0o644, []),
    (".bash_profile", 0o644, ["hidden"]),
    ("a/.ssh/authorized_keys", 0o600, ["hidden"]),
    ("project/.git/hooks/post-checkout", 0o755, ["hidden", "executable"]),
    ("run-me", 0o744, ["executable"]),
    ("run-me", 0o611, ["executable"]),
    ("Invoice.PDF.EXE", 0o644, ["executable"]),
    ("autostart/x.desktop", 0o644, ["executable"]),
    ("setup.exe. ", 0o644, ["executable", "odd"]),
    ("nul", 0o644, ["odd"]),
    ("d/COM1.txt", 0o644, ["odd"]),
    ("trailing.", 0o644, ["odd"]),
    ("trailing /x", 0o644, ["odd"]),
    ("pay\u200bpal.txt", 0o644, ["odd"]),
    ("soft\u00adhyphen", 0o644, ["odd"]),
]


@pytest.mark.parametrize(("path", "mode", "risks"), RISKY, ids=ascii)
def test_risks_of_a_path(path: str, mode: int, risks: list[Risk]) -> None:
    assert risks_of(path, mode) == risks


def test_directories_execute_nothing() -> None:
    assert risks_of("example.com", 0o755, directory=True) == []
    assert risks_of(".ssh", 0o700, directory=True) == ["hidden"]


def test_a_name_stands_for_what_is_below_it() -> None:
    assert is_named("a/.ssh/keys", ["a/.ssh"])
    assert is_named("a/.ssh", ["a/.ssh"])
    assert not is_named("a/.sshd", ["a/.ssh"])
    assert not is_named("a/.ssh", [])


HOME = {
    **{f"{number:02}.jpg": b"x" for number in range(30)},
    ".bash_profile": b"evil",
    ".ssh/authorized_keys": b"evil",
    "tool": b"evil",
    "zzz.desktop": b"evil",
}


def offered(inbox: OfferInbox) -> list[str]:
    make_files(inbox.home, HOME)
    (inbox.home / "tool").chmod(0o755)
    return ["00.jpg", *[name for name in sorted({name.partition("/")[0] for name in HOME}) if name != "00.jpg"]]


FLAGGED = {".bash_profile", ".ssh", ".ssh/authorized_keys", "tool", "zzz.desktop"}


async def test_trust_takes_no_risky_names(trusting: OfferInbox) -> None:
    summary = await trusting.put(*offered(trusting))
    assert trusting.failures(summary) == dict.fromkeys(FLAGGED, "NotAccepted")
    assert summary.done == 30
    assert set(snapshot(trusting.inbox)) == {f"{number:02}.jpg" for number in range(30)}
    (offer,) = await trusting.offers()
    assert (offer.flagged, offer.failed, offer.state) == (5, 5, "accepted")


@pytest.mark.parametrize("names", [[], [".ssh"], [".ssh/authorized_keys", "tool"]])
async def test_an_offer_accepted_by_name_is_taken_and_no_other(wary: OfferInbox, names: list[str]) -> None:
    tops = offered(wary)

    async def story() -> set[str]:
        with pytest.raises(FileError):
            await wary.put(*tops)
        (offer,) = await wary.offers()
        owner = wary.client.as_peer(wary.client.protocol.context.key).files()
        await owner.decide(offer.id, accept=True)
        assert set(wary.failures(await wary.put(*tops))) == FLAGGED
        for wrong in (["00.jpg"], ["gone"], [".bash"]):
            with pytest.raises(FileError) as caught:
                await owner.decide(offer.id, accept=True, hidden=True, names=wrong)
            assert caught.value.kind == "NotFound"
        await owner.decide(offer.id, accept=True, hidden=True, names=names)
        await wary.client.restart()
        return set(wary.failures(await wary.put(*tops)))

    taken = {path for path in FLAGGED if not names or is_named(path, names)}
    assert await story() == FLAGGED - taken
    here = set(snapshot(wary.inbox))
    assert {path for path in FLAGGED if path in here} == taken | ({".ssh"} if names else set())
    if not names:
        assert {path: each[:2] for path, each in snapshot(wary.inbox).items()} == {
            path: each[:2] for path, each in snapshot(wary.home).items()
        }


async def test_everything_in_an_offer_is_shown_in_pages(wary: OfferInbox) -> None:
    tops = offered(wary)
    with pytest.raises(FileError):
        await wary.put(*tops)
    (offer,) = await wary.offers()
    assert set(offer.examples) <= FLAGGED  # however the sender orders them
    owner = wary.client.as_peer(wary.client.protocol.context.key).files()
    shown = [entry async for entry in owner.contents(offer.id, page=7)]
    assert [entry.path for entry in shown] == sorted([*HOME, ".ssh"])
    assert {entry.path for entry in shown if entry.risks} == FLAGGED
    with pytest.raises(FileError) as caught:
        await wary.client.files().request(f.Contents(offer.id), f.OfferPage)
    assert caught.value.kind == "NotOwner"


def test_the_commands_name_what_is_risky(commands: FileCommands, capsys: pytest.CaptureFixture[str]) -> None:
    names = [*(f"{number}.jpg" for number in range(9)), ".bash_profile", ".ssh/authorized_keys"]
    make_files(commands.here, dict.fromkeys(names, b"x"))
    put = ["files", "put", "alice", *sorted(str(each) for each in commands.here.iterdir()), "--timeout", "0"]
    assert main(put) == 6
    capsys.readouterr()
    assert main(["files", "offers"]) == 0
    out, err = capsys.readouterr()
    offer, *_, shown = out.rstrip("\n").split("\t")
    assert shown == ".bash_profile, .ssh, .ssh/authorized_keys, " + ", ".join(f"{number}.jpg" for number in range(9))
    assert "3 hidden, executable or odd names must be accepted by name" in err
    assert main(["files", "offers", offer]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows] == sorted([*names, ".ssh"])
    assert {row[-1] for row in rows if row[4] == "hidden"} == {".bash_profile", ".ssh", ".ssh/authorized_keys"}
    assert main(["files", "offers", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["path"] for entry in entries if entry.get("risks")] == [
        ".bash_profile",
        ".ssh",
        ".ssh/authorized_keys",
    ]
    assert main(["files", "offers", "0123"]) == 7
    assert main(["files", "accept", offer, ".ssh"]) == 2
    capsys.readouterr()
    assert main(["files", "accept", offer]) == 0
    assert ".bash_profile (hidden)" in capsys.readouterr().err
    assert main(put) == 5
    err = capsys.readouterr().err
    assert err.count(".bash_profile: it is hidden: the receiver must accept it by name") == 2  # and at the end
    assert main(["files", "accept", offer, "--hidden", ".ssh"]) == 0
    assert ".ssh" not in capsys.readouterr().err.replace(".bash_profile", "")
    assert main(put) == 5
    assert (commands.inbox / ".ssh/authorized_keys").exists()
    assert not (commands.inbox / ".bash_profile").exists()
    assert main(["files", "accept", offer, "--hidden"]) == 0
    assert main(put) == 0
    assert (commands.inbox / ".bash_profile").exists()


# ── what is kept before consent ──────────────────────────────────────────────────────────────────


def entries(count: int, prefix: str = "") -> list[f.Entry]:
    return [
        f.Entry(f"{prefix}{number * 7919:032x}", "file", 1, number, 0o644, f"{number * 104729:016x}")
        for number in range(count)
    ]


async def test_little_is_kept_before_consent(wary: OfferInbox, tmp_path: Path) -> None:
    bob = wary.client.files()
    with pytest.raises(FileError) as caught:
        await bob.offer(entries(9000))
    assert caught.value.kind == "TooLarge"
    assert await wary.offers() == []
    for number in range(MAX_WAITING):
        await bob.offer(entries(1500, f"{number}-"))
    with pytest.raises(FileError) as caught:
        await bob.offer(entries(1500, "more-"))
    assert caught.value.kind == "TooMany"
    kept = [path.stat().st_size for path in (tmp_path / "workspace/offers").glob("*.entries")]
    assert max(kept) <= MAX_LIST
    assert sum(kept) <= MAX_LISTS
    (first, *_) = await wary.offers()
    owner = wary.client.as_peer(wary.client.protocol.context.key).files()
    assert len([entry async for entry in owner.contents(first.id)]) == 1500


async def test_rejected_lists_go_before_new_ones_are_refused(wary: OfferInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = wary.client.files()
    owner = wary.client.as_peer(wary.client.protocol.context.key).files()
    first = await bob.offer(entries(1500))
    await owner.decide(first.offer, accept=False)
    (offer,) = await wary.offers()
    monkeypatch.setattr("fastn_p2p.protocols.files.receiving.offer_inbox.MAX_LISTS", offer.kept + 10)
    await bob.offer(entries(1500, "b"))
    assert [each.state for each in await wary.offers()] == ["waiting"]


async def test_a_trusted_peer_may_offer_many(trusting: OfferInbox) -> None:
    assert (await trusting.client.files().offer(entries(9000))).state == "accepted"


# ── other places where a file gets a peer's name ─────────────────────────────────────────────────


async def test_get_leaves_hidden_names_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    shared = SharedDirectory(tmp_path)
    make_files(
        shared.root, {".bashrc": b"evil", "d/.git/hooks/x": b"evil", "d/.git/y": b"", "d/a": b"a", "d/.ssh/": b""}
    )
    (shared.root / "d/a").chmod(0o755)
    summary = await shared.get("/")
    assert set(snapshot(shared.to)) == {"d", "d/a"}
    assert sorted(event.path for event in summary.left_out) == [".bashrc", "d/.git", "d/.ssh"]
    assert (await shared.get(".bashrc")).done == 1
    assert (await shared.get("d/.git")).done == 2
    assert {".bashrc", ".git", ".git/hooks/x", ".git/y"} <= set(snapshot(shared.to))
    await shared.get("/", hidden=True)
    assert set(snapshot(shared.root)) <= set(snapshot(shared.to))
