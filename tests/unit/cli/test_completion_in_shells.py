"""Completion in real shells: what TAB puts on the line is one argument, and runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemons import eventually
from tests.support.terminals import Tty, on_terminal

ROOT: Final = Path(__file__).resolve().parents[3]
START: Final = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(fastn-p2p completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source <(fastn-p2p completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "fastn-p2p completion fish | source"),
}
"""Shell → its command, and the line that loads the script."""

HOSTILE: Final = [
    "0 $(touch pwned)",
    "1'q\"d`touch pwned`",
    "2;touch pwned;",
    "3\\back\\",
    "4!!h!x",
    "5 *?[x]{a,b} ~ #",
    "6~x",
    "8ü日本 é",
    "9:=@x:y^%$HOME",
    "A&b|c>d<e(f)",
    "C--x=$y",
]
"""Names that a peer has chosen, each with a first character of its own."""
DROPPED: Final = ["X\x1b]0;title\x07", "Y\nz", "Z\u202ex"]

PROGRAM: Final = """#!{python}
import json, sys
sys.path[:0] = {path}
if sys.argv[1] not in ("__complete", "completion"):
    with open("ran", "a") as file:
        file.write(json.dumps(sys.argv[1:]) + chr(10))
    sys.exit()
from fastn_p2p.cli import main
from fastn_p2p.cli.completion import remote_paths
remote_paths.remote_paths = lambda *arguments: {names}
sys.exit(main())
"""


@contextmanager
def shell_with_completion(name: str, directory: Path) -> Iterator[Tty]:
    """Start a shell in which ``fastn-p2p`` is our program, with a peer whose names are hostile."""
    command, load = START[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{name} is not installed")
    (directory / "bin").mkdir()
    (directory / "home").mkdir()
    program = directory / "bin/fastn-p2p"
    names = [*HOSTILE, *DROPPED, "dir/", "only one"]
    program.write_text(PROGRAM.format(python=sys.executable, path=sys.path, names=ascii(names)))
    program.chmod(0o755)
    for identity in ("alice", "bob"):
        (directory / "fastn/identities" / identity).mkdir(parents=True)
    (directory / "file.txt").write_text("")
    env = {
        "PATH": f"{directory}/bin:{os.environ['PATH']}",
        "HOME": str(directory / "home"),
        "FASTN_HOME": str(directory / "fastn"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PS1": "$ ",
    }
    before = Path.cwd()
    os.chdir(directory)
    try:
        with on_terminal(env, command=command, rows=40, columns=120) as tty:
            tty.type(f"{load}; echo lo''aded\n")
            tty.until(lambda rows: any("loaded" in row and "echo" not in row for row in rows), "the script")
            yield tty
            tty.type("\x03exit\n")
    finally:
        os.chdir(before)


def run(tty: Tty, directory: Path, line: str) -> list[str]:
    """Type a line and Enter; the arguments of the command that ran."""
    ran = directory / "ran"
    ran.unlink(missing_ok=True)
    tty.type(f"{line}\n")

    def arguments() -> list[str]:
        tty.until(lambda rows: True, "drawn")
        lines = ran.read_text().splitlines() if ran.exists() else []
        return [str(each) for each in json.loads(lines[0])] if lines else []

    return eventually(arguments, f"{line!r} runs", timeout=20)


@pytest.mark.parametrize("shell", START)
def test_what_is_completed_is_one_argument_and_runs_nothing(shell: str, tmp_path: Path) -> None:
    with shell_with_completion(shell, tmp_path) as tty:
        for name in HOSTILE:  # one on a line: after an escaped semicolon, bash completes no argument
            assert run(tty, tmp_path, f"fastn-p2p files get bob {name[0]}\t")[3:] == [name]
        typed = " ".join(f"{name[0]}\t" for name in DROPPED)
        assert run(tty, tmp_path, f"fastn-p2p files get bob {typed}")[3:] == [name[0] for name in DROPPED]
        typed = "d\tx on\tx only\\ o\t 'only o\t"
        expected = ["dir/x", "only one", "x", "only one", "only one"]
        assert run(tty, tmp_path, f"fastn-p2p fi\tget bob {typed}") == ["files", "get", "bob", *expected]
        typed = "identity-onl\tal\t --home=x"
        assert run(tty, tmp_path, f"fastn-p2p {typed}") == ["identity-online", "alice", "--home=x"]
        typed = "files put --as=a\tbob fi\t"
        assert run(tty, tmp_path, f"fastn-p2p {typed}") == ["files", "put", "--as=alice", "bob", "file.txt"]
    assert not (tmp_path / "pwned").exists()
