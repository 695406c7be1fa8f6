"""Secrets that open the vault: each goes to the vault on a descriptor, from a file or from the terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from .confirmation import can_confirm
from .exit_codes import CommandLineError
from .output import write_message
from .parameters import Option

MAX_TYPED: Final = 1024
"""Bytes of a typed passphrase. They fit into a pipe, so writing them never blocks."""
ATTEMPTS: Final = 3
"""Typing errors that are forgiven when a new passphrase is repeated."""

PassphraseFileOption = Annotated[
    Path | None,
    Option(
        "--passphrase-file",
        metavar="PATH",
        help="Read the passphrase from the first line of this file instead of the terminal. /dev/fd/3 works, too.",
    ),
]
CurrentPassphraseFileOption = Annotated[
    Path | None,
    Option(
        "--current-passphrase-file",
        metavar="PATH",
        help="Read a present passphrase or recovery code from the first line of this file.",
    ),
]


@contextlib.contextmanager
def open_passphrase(file: Path | None, prompt: str, *, repeat: bool = False) -> Iterator[int]:
    """Return a descriptor that delivers a passphrase: the file, or a pipe with what the user has typed.

    Args:
        file: file with the passphrase; None to ask on the terminal.
        prompt: question on the terminal.
        repeat: have the user type it twice, because it is a new one.

    Raises:
        CommandLineError: the file cannot be opened, there is no terminal, or nothing was typed.
    """
    if file is None:
        with open_pipe(_typed(prompt, repeat=repeat)) as descriptor:
            yield descriptor
        return
    descriptor = _open(file)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_pipe(secret: bytes | memoryview) -> Iterator[int]:
    """Return the end of a pipe that delivers a line with this secret, of at most ``MAX_TYPED`` bytes."""
    reader, writer = os.pipe()
    try:
        try:
            os.writev(writer, [secret, b"\n"])
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise CommandLineError(f"{file} cannot be read: {error.strerror}") from None


def _typed(prompt: str, *, repeat: bool) -> bytes:
    if not can_confirm():
        raise CommandLineError("there is no terminal to type a passphrase on: give it with --passphrase-file PATH")
    for _ in range(ATTEMPTS):
        typed = _prompt(f"{prompt}: ")
        if not typed:
            break
        if not repeat or _prompt("The same again: ") == typed:
            return typed
        write_message("The two are different. Type it again.")
    raise CommandLineError(
        "no passphrase was given, and nothing was changed. Repeat the command, or use --passphrase-file"
    )


def _prompt(prompt: str) -> bytes:
    from getpass import getpass

    try:
        typed = getpass(prompt).encode("utf-8", "surrogateescape")
    except EOFError:
        return b""
    if len(typed) > MAX_TYPED:
        raise CommandLineError(f"the passphrase is longer than {MAX_TYPED} bytes")
    return typed
