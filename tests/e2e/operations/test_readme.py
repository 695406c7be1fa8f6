"""The README, and the pages that go on where it ends, are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.daemons import eventually, is_alive
from tests.support.directories import running_directory
from tests.support.ports import free_port
from tests.support.processes import child
from tests.support.run_pages import INSTALLATION, ROOT, TEXT, TEXTS, block

WHOLLY_RUN = ("README.md", "docs/installing.md", "docs/python.md", "docs/writing-protocols.md", "docs/tunnels.md")
PATHS = [sysconfig.get_path("purelib"), *(str(ROOT / folder) for folder in ("", "actors", "client", "supervisor"))]
END = "--- this is the end of what it says ---"


class Machine:
    """A user's home in which "Install" has been followed, and a terminal in it: variables and places stay."""

    def __init__(self, directory: Path, name: str, **env: str) -> None:
        self.home = directory / name
        self.home.mkdir()
        self.ran: list[str] = []
        """The blocks that have been run, by their markers."""
        self._install()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FASTN_", "XDG_", "PYTHON"))}
        without = str(Path(sys.executable).parent)  # where this command is, too
        self.env = kept | {
            "PATH": os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != without),
            "HOME": str(self.home),
            "FASTN_HOST_DIRECTORY": str(directory / f"{name}-hosts"),
            "FASTN_NETWORK": "local",
            # What a build needs is here already.
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_DEPS": "1",
            **env,
        }
        self._errors = self.home.with_suffix(".errors")
        with self._errors.open("w") as errors:
            self._terminal = subprocess.Popen(
                ["bash", "-euo", "pipefail"],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.run("run: path")

    def _install(self) -> None:
        """Install as the commands of "Install" do, in a tenth of the time; ``test_installing`` runs the commands."""
        directory = self.home / ".local/share/fastn-p2p"
        venv.create(directory, symlinks=True)
        (site_packages,) = (directory / "lib").glob("*/site-packages")
        site_packages.joinpath("checkout.pth").write_text("\n".join(PATHS) + "\n")
        command = directory / "bin/fastn-p2p"
        command.write_text(
            f"#!{directory}/bin/python\nimport sys\nfrom fastn_p2p.__main__ import main\nsys.exit(main())\n"
        )
        command.chmod(0o755)
        (self.home / ".local/bin").mkdir()
        (self.home / ".local/bin/fastn-p2p").symlink_to(command)

    def close(self) -> None:
        assert self._terminal.stdin is not None
        assert self._terminal.stdout is not None
        self._terminal.stdin.close()
        self._terminal.wait(60)
        self._terminal.stdout.close()

    def run(self, marker: str, **replaced: str) -> str:
        """Run a block of the README as it stands there; its standard output. Port numbers may be ``replaced``."""
        self.ran.append(marker)
        return self.shell(_with_ports(block(marker), replaced))

    def shell(self, script: str) -> str:
        """Type it into the terminal; its standard output."""
        assert self._terminal.stdin is not None
        assert self._terminal.stdout is not None
        self._terminal.stdin.write(f"eval {shlex.quote(script)} </dev/null; echo; echo {shlex.quote(END)}\n")
        self._terminal.stdin.flush()
        lines: list[str] = []
        for line in self._terminal.stdout:
            if line == f"{END}\n":
                return "".join(lines).removesuffix("\n")
            lines.append(line)
        raise AssertionError(f"{script}\n{''.join(lines)}\n{self._errors.read_text()}")

    def python(self, marker: str, *arguments: str) -> str:
        """Run a program of the README with the interpreter of "Install"; its standard output."""
        self.ran.append(marker)
        done = subprocess.run(
            [self.python_path, "-c", block(marker), *arguments],
            env=self.env, cwd=self.home, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @property
    def python_path(self) -> str:
        return str(self.home / ".local/share/fastn-p2p/bin/python")

    @contextmanager
    def another_terminal(self, marker: str, **replaced: str) -> Iterator[subprocess.Popen[str]]:
        """A block that stays in the foreground, in a terminal of its own, until Ctrl-C."""
        self.ran.append(marker)
        command = _with_ports(block(marker), replaced)
        text = f"export PATH={shlex.quote(str(self.home / '.local/bin'))}:$PATH; exec {command}"
        with self._foreground("bash", "-c", text) as process:
            yield process

    @contextmanager
    def program(self, marker: str) -> Iterator[None]:
        """A program of the README that stays, until Ctrl-C."""
        self.ran.append(marker)
        with self._foreground(self.python_path, "-c", block(marker)):
            yield

    @contextmanager
    def _foreground(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        with child(
            subprocess.Popen(
                command, env=self.env, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
        eventually(lambda: not is_alive(process.pid), f"{command[-1]} is gone")

    @contextmanager
    def daemon(self, marker: str = "stays: daemon") -> Iterator[None]:
        with self.another_terminal(marker) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert " ready in " in line, line + process.stderr.read()
            yield
        assert process.returncode == 0


def _with_ports(text: str, replaced: dict[str, str]) -> str:
    for name, port in replaced.items():
        text = text.replace(name.removeprefix("port_"), port)
    return text


@contextmanager
def machines(directory: Path, *names: str, **env: str) -> Iterator[list[Machine]]:
    made = [Machine(directory, name, **env) for name in names]
    try:
        yield made
    finally:
        for machine in made:
            machine.close()


ALONE = [
    "run: path",
    "stays: daemon",
    "run: quick start",
    "run: call",
    "run: first call",
    "run: server",
    "run: stream",
    "run: completion",
    "run: keeps state",
    "run: permissions",
    "run: taking back",
    "run: async",
    "run: sync",
    "run: request id",
    "run: administer",
    "run: declare",
    "run: serve all",
    "run: new protocol",
    "run: install protocol",
    "run: life",
    "run: testing",
    "run: new stream protocol",
    "run: stream command",
    "run: stream program",
]
"""Commands that the reader runs on one machine, in the order of the pages."""
TUTORIAL = [
    "run: path",
    "run: tutorial, version",
    "run: tutorial, home",
    "stays: tutorial, daemon",
    "run: tutorial, identities",
    "run: tutorial, call",
    "run: tutorial, peer",
    "run: tutorial, share",
    "run: tutorial, access",
    "run: tutorial, mail",
    "run: tutorial, read",
    "run: tutorial, program",
    "run: tutorial, status",
    "run: tutorial, clean",
]
BOB = [
    "run: path",
    "stays: daemon",
    "run: two machines, bob",
    "run: two machines, bob again",
    "run: tutorial, pair there",
    "run: files, bob",
    "run: files, accept",
    "run: mail, bob",
    "stays: tunnel, service",
    "run: tunnel, bob",
    "run: chat, bob",
]
ALICE = [
    "run: path",
    "stays: daemon",
    "run: two machines, alice",
    "stays: tutorial, pair",
    "run: files, alice",
    "run: files, alice puts",
    "run: mail, alice",
    "run: mail program",
    "stays: tunnel, alice",
    "run: tunnel, alice looks",
    "run: chat, alice",
]


def test_every_marked_block_is_run_in_its_order() -> None:
    markers = re.findall(r"^<!-- ((?:run|stays): .*) -->$", TEXT, re.MULTILINE)
    programs = {"run: protocol", "run: stream protocol"}  # modules, which the reader puts into files
    programs.add("run: pytest")  # tests/e2e/programs/test_pytest_plugin.py runs it
    assert set(markers) == {*ALONE, *TUTORIAL, *BOB, *ALICE, *INSTALLATION, *programs}
    for order in (ALONE, TUTORIAL, BOB, ALICE, INSTALLATION):
        assert [marker for marker in markers if marker in order] == order


@pytest.mark.parametrize("name", WHOLLY_RUN)
def test_every_block_of_these_pages_is_marked(name: str) -> None:
    blocks = re.findall(r"^(?:<!-- (.*) -->\n)?```(?:sh|python)\n(.*)", TEXTS[name], re.MULTILINE)
    assert [first for marker, first in blocks if not marker and not first.startswith("make demo")] == []


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 170


def test_on_one_machine(tmp_path: Path) -> None:
    with machines(tmp_path, "home") as (machine,), machine.daemon():
        started = machine.run("run: quick start")
        assert re.match(r"[0-9a-v]{52}\n", started)
        assert re.search(r"Echo +default +everyone", started)
        called = machine.run("run: call")
        assert re.sub(r"^[0-9a-v]{52}\n", "", called) == block("output: call")
        ticket = machine.shell("echo $PEER").strip()
        assert machine.python("run: first call", ticket) == "Echo: hi\n"
        with machine.program("run: server"):
            eventually(lambda: "Clock" in machine.shell("fastn-p2p status --json"), "the program serves")
            assert machine.shell('fastn-p2p call $PEER Clock --data \'{"time": "morning"}\' --as bob') == (
                '"good morning"\n'
            )
            assert machine.run("run: stream") == "HELLO\n"

        machine.run("run: completion")
        assert machine.shell("complete -p fastn-p2p") == "complete -F _fastn_p2p fastn-p2p\n"
        assert machine.python("run: keeps state") == ""
        assert machine.python("run: permissions") == ""
        machine.run("run: taking back")
        assert "backup" not in machine.shell("fastn-p2p status")
        assert machine.shell("fastn-p2p list-identities | cut -f 1,3") == "alice\tonline\nbob\tonline\n"
        assert machine.python("run: async", ticket) == "Echo: hi\nMessageEmpty {'length': 0, 'max_length': 500}\n"
        assert machine.python("run: sync", ticket) == "Echo: hi\nEcho: 0\nEcho: 1\nEcho: 2\n"
        assert machine.python("run: request id", ticket) == "order-4711 MessageEmpty\n"
        assert re.fullmatch(r"[0-9a-v]{52} serving\n\[.*\] \w+\n", machine.python("run: administer"))
        machine.run("run: declare")
        assert "waiting for a program" in machine.shell("fastn-p2p status")
        with machine.program("run: serve all"):
            eventually(lambda: "waiting for" not in machine.shell("fastn-p2p status --json"), "it serves alice's Notes")
            for note in ("one", "two", "three"):
                machine.shell(f"fastn-p2p call $PEER Notes --command notes.add --data '\"{note}\"' --as bob")
            assert machine.shell("fastn-p2p call $PEER Notes --data null --as bob") == '["one","two"]\n'

        assert machine.run("run: new protocol") == "greet-protocol\n"
        save(machine, "run: protocol", "greet-protocol/greet_protocol.py")
        assert block("entry point") in (machine.home / "greet-protocol/pyproject.toml").read_text()
        greeted = machine.run("run: install protocol").splitlines()[-1]
        assert greeted.startswith('{"greeting":"Hello Bob, also known as ')
        listed = machine.run("run: life")
        assert "\nGreet  Greets a caller by name.\n" in listed
        assert 'greeting  string  default "Hello"' in listed
        assert machine.python("run: testing") == ""

        assert machine.run("run: new stream protocol") == "shout-protocol\n"
        save(machine, "run: stream protocol", "shout-protocol/shout_protocol.py")
        assert machine.run("run: stream command").splitlines()[-1] == "HELLO"
        assert machine.python("run: stream program", ticket) == "5 bytes\n"
        assert (machine.home / "shouted.txt").read_bytes() == b"HELLO"
    assert machine.ran == ALONE


def test_the_tutorial(tmp_path: Path) -> None:
    home = str(tmp_path / "home" / "fastn-tutorial")
    with machines(tmp_path, "home", FASTN_HOME=home) as (machine,):
        assert machine.run("run: tutorial, version").startswith("fastn-p2p ")
        machine.run("run: tutorial, home")
        assert machine.shell("echo $FASTN_HOME") == f"{home}\n"
        with machine.daemon("stays: tutorial, daemon"):
            machine.run("run: tutorial, identities")
            assert machine.run("run: tutorial, call") == block("output: tutorial, call")
            machine.run("run: tutorial, peer")
            assert machine.run("run: tutorial, share").endswith("Milk, bread, apples\n")
            assert "alice" in machine.run("run: tutorial, access")
            machine.run("run: tutorial, mail")
            eventually(lambda: "Dinner" in machine.shell("fastn-p2p mail list --as bob"), "the mail has come")
            assert machine.run("run: tutorial, read").endswith("At eight?\n")
            assert machine.python("run: tutorial, program") == "Echo: from a program\n"
            assert "FileTransfer" in machine.run("run: tutorial, status")
        machine.run("run: tutorial, clean")
        assert machine.ran == TUTORIAL


def save(machine: Machine, marker: str, file: str) -> None:
    """Save the block of code after ``marker`` as ``file``."""
    assert f"`{file}`" in TEXT
    (machine.home / file).write_text(block(marker))


def test_on_two_machines(tmp_path: Path) -> None:
    """Daemons that share nothing but a directory, and learn each other's ID52 in some way."""
    with (
        running_directory(tmp_path / "directory.sqlite") as directory,
        machines(tmp_path, "bob", "alice", FASTN_DIRECTORIES=directory.url) as (bob, alice),
        bob.daemon(),
        alice.daemon(),
    ):
        id52 = bob.run("run: two machines, bob").splitlines()[0]
        eventually(lambda: is_published(bob, directory.url), "bob is published")
        alice.shell(f"BOB={id52}")
        called = alice.run("run: two machines, alice")
        assert '{"echoed":"Echo: Hello Bob!"}' in called
        eventually(lambda: is_published(alice, directory.url), "alice is published")
        bob.shell(f"ALICE={called.splitlines()[0]}")
        assert "alice\t" in bob.run("run: two machines, bob again")

        with alice.another_terminal("stays: tutorial, pair") as shown:
            assert shown.stdout is not None
            words = {"WORD WORD WORD WORD": shown.stdout.readline().strip()}
            assert bob.run("run: tutorial, pair there", **words).startswith("alice\t")
            assert shown.stdout.readline() == f"bob\t{id52}\n"

        bob.run("run: files, bob")
        listed = alice.run("run: files, alice")
        assert listed.splitlines()[0].split("\t")[0::3] == ["file", "report.txt"]
        assert (alice.home / "from-bob/report.txt").read_text() == "All is well.\n"

        for name in ("holiday", "another"):  # the second offer is accepted as the first one was
            with ThreadPoolExecutor(1) as pool:
                if name == "holiday":
                    running = pool.submit(alice.run, "run: files, alice puts")
                else:
                    (alice.home / name).write_text("another file")
                    running = pool.submit(alice.shell, f"fastn-p2p files put bob ~/{name}")
                eventually(lambda: "waiting" in bob.shell("fastn-p2p files offers"), "alice has offered something")
                if name == "holiday":
                    assert "\talice\twaiting\t1\t17\t" in bob.run("run: files, accept")
                else:
                    bob.shell(block("run: files, accept"))
                running.result(60)
        assert (bob.home / "inbox/holiday/plan.txt").read_text() == "Monday: the sea.\n"
        assert (bob.home / "inbox/another").read_text() == "another file"

        bob.run("run: mail, bob")
        alice.run("run: mail, alice")
        eventually(lambda: "Lunch?" in bob.shell("fastn-p2p mail list"), "the mail has come")
        assert bob.shell("fastn-p2p mail read 1").endswith("At noon, as always.\n")

        assert alice.python("run: mail program") == "delivered\n"

        ports = {name: str(free_port()) for name in ("port_8000", "port_9000")}
        with bob.another_terminal("stays: tunnel, service", **ports):
            eventually(lambda: listens(ports["port_8000"]), "the service runs")
            bob.run("run: tunnel, bob", **ports)
            with alice.another_terminal("stays: tunnel, alice", **ports) as forward:
                assert forward.stdout is not None
                assert forward.stdout.readline() == f"127.0.0.1:{ports['port_9000']}\n"
                assert alice.run("run: tunnel, alice looks", **ports) == "All is well.\n\n"

        bob.run("run: chat, bob")
        assert alice.run("run: chat, alice") == block("output: chat")
        read = "fastn-p2p chat alice --last 1 < /dev/null | cut -f 2-"
        eventually(lambda: bob.shell(read) == "alice\tdinner at eight?\n", "it has come")
    assert (bob.ran, alice.ran) == (BOB, ALICE)


def listens(port: str) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 20):
        return True
    return False


def is_published(machine: Machine, url: str) -> bool:
    """Return true if the directory has the record of each identity of the machine."""
    identities = json.loads(machine.shell("fastn-p2p status --json"))["identities"]
    return all(
        any(each["place"] == url and each["age_ms"] is not None for each in identity["publications"])
        for identity in identities
    )
