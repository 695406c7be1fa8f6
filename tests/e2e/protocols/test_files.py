"""Files between two real daemons: the commands, and transfers during which everything is killed that can be."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastn_p2p.cli import main
from fastn_p2p.protocols.files.client import FilesClient
from fastn_p2p.protocols.files.events import Event, FileProgress, FileStarted, Retrying, TransferSummary
from fastn_p2p.protocols.files.framing import FrameStream
from fastn_p2p.protocols.files.messages import DownloadFiles, FileRequest
from fastn_p2p.protocols.files.receiving.partial_file import partial_name
from fastn_p2p.protocols.files.sending.offer_manifest import OfferManifest
from fastn_p2p_client import Client, connect, sync
from fastn_p2p_client.errors import ApplicationError, Denied, StreamReset
from tests.benchmarks.processes import cpu_seconds
from tests.support.daemons import CLI, Daemon, eventually, is_alive
from tests.support.file_peers import Contents, make_files, snapshot
from tests.support.processes import send_signal, signal_if_alive
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons, until_awaited

MIB = 1024 * 1024


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class FilesSetup:
    """bob, at the second daemon, shares ``root`` and trusts alice, who is at the first; ``wary`` trusts no peer."""

    def __init__(self, daemons: TwoDaemons, directory: Path) -> None:
        self.daemons = daemons
        self.root, self.inbox, self.wary, self.here = (directory / name for name in ("root", "inbox", "wary", "here"))
        for each in (self.root, self.inbox, self.wary, self.here):
            each.mkdir()
        add_binding(
            *(daemons.two, "bob", "FileTransfer", "default", "everyone"),
            root=str(self.root), inbox=str(self.inbox), trust=[daemons.alice],
        )  # fmt: skip
        add_binding(daemons.two, "bob", "FileTransfer", "wary", "everyone", inbox=str(self.wary))
        add_binding(daemons.two, "bob", "FileTransfer", "private", "peers", root=str(self.root))

    def files(self, *arguments: str, daemon: Daemon | None = None) -> Ended:
        """Run a command of alice, or of another daemon's owner, in this process: starting another one takes long."""
        home = str((daemon or self.daemons.one).home.path)
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["files", *arguments, "--home", home])
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
        return Ended(code, out.read(), err.read())

    def clear(self) -> None:
        for each in (self.root, self.inbox, self.wary, self.here):
            subprocess.run(["find", each, "-mindepth", "1", "-delete"], check=True)


@pytest.fixture(scope="module")
def _setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesSetup]:
    with start_two_daemons(echo=False) as daemons:
        yield FilesSetup(daemons, tmp_path_factory.mktemp("files"))


@pytest.fixture
def setup(_setup: FilesSetup) -> Iterator[FilesSetup]:
    yield _setup
    _setup.clear()


SOME: Contents = {"a.txt": b"a", "d/big": 3 * MIB + 17, "d/e/c": 12345, "d/empty": b"", "d/nothing/": b"", "ü/ö": b"x"}


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


def test_shared_files_are_listed_and_downloaded(setup: FilesSetup) -> None:
    make_files(setup.root, SOME)
    (setup.root / "link").symlink_to("a.txt")
    listed = setup.files("ls", setup.daemons.bob)
    assert [line.split("\t")[::3] for line in listed.stdout.splitlines()] == [
        ["file", "a.txt"],
        ["directory", "d"],
        ["other", "link"],
        ["directory", "ü"],
    ]
    assert setup.files("ls", setup.daemons.bob, "d/e/c").stdout == "file\t12345\t2023-11-14T22:13:22Z\td/e/c\n"
    assert json.loads(setup.files("ls", setup.daemons.bob, "ü", "--json").stdout)["path"] == "ö"

    got = setup.files("get", setup.daemons.bob, "/", "--to", str(setup.here))
    assert (got.returncode, got.stdout) == (14, "")
    assert "link: skipped: it is a link" in got.stderr
    assert "5 files, 3.2 MB" in got.stderr
    (setup.root / "link").unlink()
    assert snapshot(setup.here) == snapshot(setup.root)

    again = setup.files("get", setup.daemons.bob, "/", "--to", str(setup.here), "--json")
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert sorted(line["event"] for line in lines) == ["end", "expected", *["kept"] * 5]
    assert lines[-1]["event"] == "end"
    assert (lines[-1]["kept"], lines[-1]["moved"], again.stderr) == (5, 0, "")

    (setup.here / "a.txt").write_text("mine")
    refused = setup.files("get", setup.daemons.bob, "a.txt", "d", "--to", str(setup.here))
    assert refused.returncode == 8
    assert "a.txt: another file has this name already" in refused.stderr
    assert (setup.here / "a.txt").read_text() == "mine"
    assert setup.files("get", setup.daemons.bob, "a.txt", "--to", str(setup.here), "--force").returncode == 0
    assert (setup.here / "a.txt").read_bytes() == b"a"


def test_an_upload_waits_until_it_is_accepted(setup: FilesSetup) -> None:
    make_files(setup.here, SOME)
    put = ["put", setup.daemons.bob, str(setup.here / "d"), str(setup.here / "a.txt"), "--instance", "wary"]
    waits = setup.files(*put, "--timeout", "0")
    assert waits.returncode == 6
    assert "Run the same command again to resume" in waits.stderr

    bob = setup.daemons.two
    (line,) = setup.files("offers", "--instance", "wary", daemon=bob).stdout.splitlines()
    offer, peer, state, files, size, _, names = line.split("\t")
    assert (peer, state, files, size, names) == (setup.daemons.alice, "waiting", "4", "3158091", "a.txt, d")
    assert setup.files("offers", "--instance", "wary", "--as", "carol", daemon=bob).returncode == 7
    assert setup.files("accept", "0123", "--instance", "wary", daemon=bob).returncode == 7

    with running(setup.daemons.one, "files", *put, "--json") as process:
        assert next_event(process, "offer")["state"] == "waiting"
        assert setup.files("accept", offer, "--instance", "wary", daemon=bob).returncode == 0
        assert process.wait(60) == 0
    assert snapshot(setup.wary / "d") == snapshot(setup.here / "d")
    assert json.loads(setup.files("offers", "--instance", "wary", "--json", daemon=bob).stdout)["state"] == "finished"

    make_files(setup.here, {"more": b"more"})
    put[2:4] = [str(setup.here / "more")]
    assert setup.files(*put, "--timeout", "0").returncode == 6
    offer = setup.files("offers", "--instance", "wary", daemon=bob).stdout.splitlines()[-1].split("\t")[0]
    assert setup.files("reject", offer, "--instance", "wary", daemon=bob).returncode == 0
    rejected = setup.files(*put)
    assert (rejected.returncode, rejected.stdout) == (1, "")
    assert "has rejected offer" in rejected.stderr


def test_how_commands_end_that_cannot_succeed(setup: FilesSetup) -> None:
    make_files(setup.root, {"a": b"a"})
    make_files(setup.here, {"x": b"x"})
    bob = setup.daemons.bob
    for code, words, *command in (
        (1, "no file or directory with this name", "ls", bob, "gone"),
        (1, "no file or directory with this name", "get", bob, "gone"),
        (2, "not a safe name", "ls", bob, "../up"),
        (2, "not a safe name", "get", bob, "../up"),
        (2, "no directory", "get", bob, "a", "--to", "/nowhere/at/all"),
        (5, "does not let you use", "ls", bob, "--instance", "private"),
        (7, "no instance", "get", bob, "a", "--instance", "other"),
        (1, "shares no files", "ls", bob, "--instance", "wary"),
        (74, "No such file", "put", bob, str(setup.here / "gone")),
        (2, "--timeout", "put", bob, str(setup.here / "x"), "--timeout", "-1"),
        (4, "nothing is known about", "get", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "a"),
    ):
        ended = setup.files(*command)
        assert ended.returncode == code, (command, ended.stderr)
        assert words in ended.stderr, (command, ended.stderr)
        assert "Traceback" not in ended.stderr


def test_paths_of_a_peer_are_completed_and_nothing_waits_for_a_daemon_that_hangs(setup: FilesSetup) -> None:
    make_files(setup.root, {"photos/a": b"a", "plan": b"b", "$(touch x)": b"c", "pl\x1b[2Jn": b"d"})

    def completed(word: str) -> str:
        words = ["fastn-p2p", "files", "get", setup.daemons.bob, word]
        done = subprocess.run(
            [*CLI, "__complete", "zsh", *words], env=setup.daemons.one.env, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout

    eventually(lambda: completed("p") == "words\nphotos/\nplan\n", "the peer answers within the deadline")
    eventually(lambda: completed("photos/") == "words\nphotos/a\n", "so for another directory")
    eventually(lambda: completed("$") == "words\n$(touch x)\n", "so for any name")
    pid = setup.daemons.one.pid("network")
    send_signal(pid, signal.SIGSTOP)
    try:
        assert completed("p") == ""
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_full_disk_here_is_told_and_the_rest_is_got_later(setup: FilesSetup) -> None:
    make_files(setup.root, {"big": 3 * MIB})
    limited = [f"ulimit -f 2000; exec {' '.join(CLI)} files get {setup.daemons.bob} big --to {setup.here}"]
    full = subprocess.run(
        ["bash", "-c", *limited], env=setup.daemons.one.env, capture_output=True, text=True, timeout=100, check=False
    )
    assert full.returncode == 74
    assert "no space left" in full.stderr
    assert [path.stat().st_size for path in setup.here.iterdir()] == [2000 * 1024]
    assert setup.files("get", setup.daemons.bob, "big", "--to", str(setup.here)).returncode == 0
    assert snapshot(setup.here) == snapshot(setup.root)


# ── one file as bytes ────────────────────────────────────────────────────────────────────────────


async def test_a_plain_text_opens_a_session_with_that_file(setup: FilesSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(setup.root, {"report.pdf": 5 * MIB + 3, "d/ü/small": b"small", "empty": b""})
    peer, got = setup.daemons.bob, setup.here / "got"
    monkeypatch.setenv("FASTN_HOME", str(setup.daemons.one.home.path))

    async def fetch(path: str) -> None:
        async with await connect("alice", peer, "FileTransfer", "default", path) as session:
            with got.open("wb") as file:
                await session.copy_to(file)

    def fetch_blocking(path: str) -> None:
        with sync.connect("alice", peer, "FileTransfer", "default", path) as session, got.open("wb") as file:
            session.copy_to(file)

    for path in ("report.pdf", "d/ü/small", "empty"):
        await fetch(path)
        assert got.read_bytes() == (setup.root / path).read_bytes()
    for path in ("report.pdf", "d/ü/small", "empty"):
        fetch_blocking(path)
        assert got.read_bytes() == (setup.root / path).read_bytes()
    for path, kind in (
        ("gone", "NotFound"),
        ("d/gone", "NotFound"),
        ("d", "NotAFile"),
        ("", "NotAFile"),
        ("report.pdf/x", "NotADirectory"),
        ("../report.pdf", "UnsafeName"),
        ("/etc/passwd", "UnsafeName"),
    ):
        with pytest.raises(ApplicationError) as failed:
            fetch_blocking(path)
        assert failed.value.kind == kind
        with pytest.raises(ApplicationError) as failed:
            await fetch(path)
        assert failed.value.kind == kind
    with pytest.raises(Denied):
        sync.connect("alice", peer, "FileTransfer", "private", "report.pdf")
    with pytest.raises(ApplicationError) as failed:
        sync.connect("alice", peer, "FileTransfer", "wary", "report.pdf")
    assert failed.value.kind == "NotShared"


async def test_a_file_that_is_cut_short_while_it_is_sent_has_no_end(setup: FilesSetup) -> None:
    make_files(setup.root, {"big": 40 * MIB})
    async with Client(setup.daemons.one.home) as client:
        session = await client.connect("alice", setup.daemons.bob, "FileTransfer", initial="big")
        await session.read()
        os.truncate(setup.root / "big", 20 * MIB)
        with pytest.raises(StreamReset):
            await session.copy_to(io.BytesIO())
        session.reset()


# ── a peer that wants much ───────────────────────────────────────────────────────────────────────


async def test_a_peer_that_has_much_hashed_costs_others_nothing_and_itself_only_while_it_asks(
    setup: FilesSetup,
) -> None:
    """Sixteen sessions want the end of a file of 40 GiB that has no content."""
    (setup.root / "huge").touch()
    os.truncate(setup.root / "huge", 40 * 1024 * MIB)
    make_files(setup.root, {"small": b"small"})
    async with Client(setup.daemons.one.home) as client, asyncio.timeout(240):
        files = FilesClient(client, "alice", setup.daemons.bob)
        sessions = [await files.open(DownloadFiles()) for _ in range(16)]
        for number, session in enumerate(sessions):
            await FrameStream(session).send_message(FileRequest("huge", 40 * 1024 * MIB - number, bytes(32)))
        for _ in range(20):
            assert (await files.stat("small")).size == 5
        for session in sessions:
            session.reset()

        async def got() -> bool:
            return (await files.get(["small"], setup.here)).failures == []

        await until_awaited(got, "the sessions are over")
        pid = setup.daemons.two.pid("identity-bob")
        await until_awaited(lambda: is_idle(pid), "nothing is hashed any more")


async def is_idle(pid: int) -> bool:
    """Return true if the process uses next to no processor time."""
    before = cpu_seconds(pid)
    await asyncio.sleep(0.3)
    return cpu_seconds(pid) - before < 0.1


# ── killing ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def running(daemon: Daemon, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command with its output to be read."""
    process = subprocess.Popen([*CLI, *command], env=daemon.env, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def next_event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next of this kind that the command prints."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == kind:
            return event
    raise AssertionError(f"the command ended without {kind}")


@pytest.mark.parametrize("direction", ["get", "put"])
def test_a_command_that_is_killed_is_gone_on_with_by_the_next_one(setup: FilesSetup, direction: str) -> None:
    source, target = (setup.root, setup.here) if direction == "get" else (setup.here, setup.inbox)
    command = ["get", setup.daemons.bob, "big", "--to", str(target)]
    if direction == "put":
        command = ["put", setup.daemons.bob, str(source / "big")]
    peer = setup.daemons.bob if direction == "get" else setup.daemons.alice
    part = target / partial_name("big", peer)
    sizes = itertools.count(40 * MIB)

    def is_interrupted() -> int:
        """Begin, and kill the command. Return the size of the file; 0 if all of it was faster."""
        setup.clear()
        size = next(sizes)
        make_files(source, {"big": size})
        with running(setup.daemons.one, "files", *command, "--json") as process:
            next_event(process, "begun")
            eventually(
                lambda: (target / "big").exists() or (part.exists() and part.stat().st_size > MIB), "some is there"
            )
        return 0 if (target / "big").exists() else size

    size = eventually(is_interrupted, "the command is killed in the middle")
    arrived = part.stat().st_size

    with running(setup.daemons.one, "files", *command, "--json") as process:
        assert next_event(process, "begun")["offset"] >= arrived
        end = next_event(process, "end")
        assert process.wait(60) == 0
    assert end["moved"] <= size - arrived
    assert snapshot(target) == snapshot(source)


class Assassin:
    """Kills one process of a daemon after the other, each once something has moved since the last one was killed."""

    def __init__(self, *victims: tuple[Daemon, str]) -> None:
        self._victims = list(victims)
        self._moved = 0
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)
        self._moved += isinstance(event, FileProgress)
        if self._moved >= 4 and self._victims:
            daemon, actor = self._victims.pop(0)
            self._moved = 0
            eventually(lambda: self._kill(daemon, actor), f"{actor} is ready")  # nothing moves meanwhile

    def _kill(self, daemon: Daemon, actor: str) -> bool:
        """Kill the process. Return False if there is none yet: the end of another may have ended it, too."""
        process = daemon.processes().get(actor, {})
        if process.get("state") != "ready" or not is_alive(process["pid"]):
            return False
        daemon.remember()
        signal_if_alive(process["pid"], signal.SIGKILL)
        return True

    def done(self) -> bool:
        return not self._victims


def transfer(setup: FilesSetup, work: Callable[[FilesClient], Any]) -> TransferSummary:
    async def conversation() -> TransferSummary:
        async with Client(setup.daemons.one.home) as client, asyncio.timeout(240):
            summary: TransferSummary = await work(FilesClient(client, "alice", setup.daemons.bob))
            return summary

    return asyncio.run(conversation())


def victims(daemons: TwoDaemons) -> list[tuple[Daemon, str]]:
    return [
        (daemons.two, "network"),
        (daemons.one, "network"),
        (daemons.two, "identity-bob"),
        (daemons.one, "identity-alice"),
        (daemons.two, "network"),
    ]


@pytest.mark.parametrize("direction", ["get", "put"])
def test_every_process_may_be_killed_while_files_move(setup: FilesSetup, direction: str) -> None:
    """The result is bit-identical, and what had arrived is not sent again."""
    source, target = (setup.root, setup.here) if direction == "get" else (setup.here, setup.inbox)
    make_files(source, {f"things/{number}": 20 * MIB for number in range(4)})
    assassin = Assassin(*victims(setup.daemons))
    if direction == "get":
        summary = transfer(setup, lambda files: files.get(["things"], target, report=assassin.report, parallel=2))
    else:
        manifest = OfferManifest.scan([source / "things"])
        summary = transfer(setup, lambda files: files.put(manifest, report=assassin.report, parallel=2))
    assert assassin.done(), "the transfer was over too early"
    assert summary.failures == []
    assert snapshot(target) == snapshot(source)
    assert any(isinstance(event, Retrying) for event in assassin.events)
    assert any(isinstance(event, FileStarted) and event.offset for event in assassin.events)
    assert summary.moved < 1.5 * 80 * MIB
    for daemon, actor in victims(setup.daemons):
        daemon.wait_actor(actor)


@pytest.mark.parametrize("side", ["one", "two"])
def test_a_whole_daemon_may_be_restarted_while_files_move(setup: FilesSetup, side: str) -> None:
    daemon: Daemon = getattr(setup.daemons, side)
    make_files(setup.root, {"big": 60 * MIB})
    restarted = False

    async def restart() -> None:
        await asyncio.to_thread(daemon.stop)
        await asyncio.to_thread(daemon.start)

    async def get(files: FilesClient) -> TransferSummary:
        tasks: list[asyncio.Task[None]] = []

        def report(event: Event) -> None:
            nonlocal restarted
            if isinstance(event, FileProgress) and event.offset > 5 * MIB and not restarted:
                restarted = True
                tasks.append(asyncio.create_task(restart()))

        summary = await files.get(["big"], setup.here, report=report)
        await asyncio.gather(*tasks)
        return summary

    assert transfer(setup, get).done == 1
    assert restarted
    assert snapshot(setup.here) == snapshot(setup.root)
