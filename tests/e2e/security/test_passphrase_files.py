"""``--passphrase-file`` of every command that asks for a passphrase: descriptors, and files that are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.cheap_secrets import CHEAP_SECRETS
from tests.support.daemons import CLI, DEADLINE
from tests.support.vault_owners import Owner

ON_DESCRIPTOR: Final = 'cat "$0" | { exec 3<&0 </dev/null; exec "$@"; }'
"""Shell command that gives the content of a file on descriptor 3, which is a pipe."""
USAGE: Final = 2


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    folder = Path(tempfile.mkdtemp(prefix="fastn-"))
    owner = Owner(folder, PYTHONPATH=str(CHEAP_SECRETS))
    try:
        owner.daemon.start()
        owner.daemon.identity("alice")
        yield owner
    finally:
        owner.daemon.clean_up()
        shutil.rmtree(folder)


def run(owner: Owner, secret: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a secret on descriptor 3. Standard input is no terminal."""
    return subprocess.run(
        ["sh", "-c", ON_DESCRIPTOR, str(secret), *CLI, *arguments, "--passphrase-file", "/dev/fd/3"],
        env=owner.daemon.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_each_command_reads_a_descriptor(owner: Owner, tmp_path: Path) -> None:
    new, backup, right = tmp_path / "new", str(tmp_path / "alice.age"), str(owner.right)
    new.write_text("staple")  # without a line break

    def done(secret: Path, *arguments: str) -> str:
        ended = run(owner, secret, *arguments)
        assert ended.returncode == 0, (arguments, ended.stderr, owner.daemon.report())
        return ended.stdout + ended.stderr

    assert "Encrypted 2 keys" in done(owner.right, "vault", "set-passphrase")
    owner.lock()
    assert "The vault is unlocked" in done(owner.right, "vault", "unlock", "--for", "8h")
    present = ("--current-passphrase-file", right)
    assert "Added" in done(new, "vault", "add-slot", "passphrase", "--name", "other", *present)
    assert "Removed" in done(owner.right, "vault", "remove-slot", "other")
    assert len(done(owner.right, "vault", "recovery-code", "--unchecked").split("\n")[0].split()) == 12
    assert "Changed" in done(new, "vault", "set-passphrase", *present)
    assert "Backed up" in done(owner.right, "backup", "create", backup)
    assert "alice" in done(owner.right, "backup", "show", backup)
    assert "Left alice" in done(owner.right, "backup", "restore", backup)
    owner.daemon.stop()
    owner.daemon.launch("--passphrase-file", "/dev/fd/3", prefix=("sh", "-c", 'exec "$@" 3<"$0"', str(new)))
    assert owner.daemon.wait_ready(), owner.daemon.report()
    assert "1 identity online" in "".join(owner.daemon.errors)
    assert "Revoked alice" in done(owner.right, "identity", "revoke", "alice", "--yes", "--backup", backup)


def test_a_file_that_is_none_is_named_and_is_no_attempt(owner: Owner, tmp_path: Path) -> None:
    empty, blank, long = (tmp_path / each for each in ("empty", "blank", "long"))
    empty.write_bytes(b"")
    blank.write_bytes(b"\r\nsecond line")
    long.write_bytes(b"x" * 2000)
    for path, said in (
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path, "it cannot be read: Is a directory"),
        (empty, "it is empty"),
        (blank, "it is empty"),
        (long, "longer than 1024 bytes"),
        ("/dev/fd/9", "cannot be read"),
    ):
        for command in (("vault", "unlock"), ("backup", "create", str(tmp_path / "none.age"))):
            ended = owner.daemon.cli(*command, "--passphrase-file", str(path))
            assert (ended.returncode, said in ended.stderr) == (USAGE, True), (path, ended.stderr)
            assert not (tmp_path / "none.age").exists()
    assert owner.state().wait == 0


def test_a_named_pipe_is_read_once_its_writer_comes(owner: Owner, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*CLI, "vault", "unlock", "--passphrase-file", str(pipe)]
    with subprocess.Popen(command, env=owner.daemon.env, stderr=subprocess.PIPE, text=True) as unlock:
        pipe.write_text("staple\r\n")
        _, said = unlock.communicate(timeout=DEADLINE)
    assert (unlock.returncode, said) == (0, "The vault is unlocked.\n")
