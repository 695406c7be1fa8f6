"""Random keys of slots in the keyring of the desktop, through the Python package ``keyring``.

The package loads code of others and talks to the desktop, so it runs in a child process. The key goes from there to the
vault through a pipe: this process never has it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

from fastn_p2p_client.home import Home

from .exit_codes import CommandLineError

SERVICE: Final = "fastn-p2p"
"""Name under which the keyring lists the keys; the user name is the home and the slot."""
COMMAND_SECONDS: Final = 120.0
"""Seconds for a command: the desktop may ask its user to unlock the keyring."""
START_SECONDS: Final = 15.0
"""Seconds at the start of the daemon, which the unit ends after 30."""
_KEY_BYTES: Final = 32
_DONE: Final = b"\n"
"""Report of a child that has succeeded. Any other report is the reason of its failure."""
_MAX_REPORT: Final = 4096

MISSING: Final = (
    "the Python package keyring is not installed. Install it beside fastn-p2p: pip install 'fastn-p2p[keyring]', "
    "or pipx inject fastn-p2p keyring"
)
NO_BACKEND: Final = (
    "no keyring can be reached. Start the one of your desktop (GNOME Keyring, KWallet), in whose session the command "
    "must run, or configure one for the Python package keyring"
)


@contextlib.contextmanager
def keyring_key(home: Home, slot: str, seconds: float = COMMAND_SECONDS) -> Iterator[int]:
    """Return a descriptor that delivers the key of a slot.

    Raises:
        CommandLineError: the keyring has no such key, is not reachable, or does not answer in time.
    """
    with _child(_read, home, slot, seconds) as descriptor:
        yield descriptor


@contextlib.contextmanager
def new_keyring_key(home: Home, slot: str) -> Iterator[int]:
    """Store a new random key for a slot, and return a descriptor that delivers it. Raises CommandLineError."""
    with _child(_create, home, slot, COMMAND_SECONDS) as descriptor:
        yield descriptor


def delete_keyring_key(home: Home, slot: str) -> None:
    """Delete the key of a slot. Raises CommandLineError."""
    with _child(_delete, home, slot, COMMAND_SECONDS):
        pass


# ── in the child ─────────────────────────────────────────────────────────────────────────────────


def _read(account: str) -> str:
    import keyring

    found = keyring.get_password(SERVICE, account)
    if not found:
        raise CommandLineError(f"the keyring has no key for {account}. Unlock the vault with another slot")
    return found


def _create(account: str) -> str:
    import keyring

    key = secrets.token_hex(_KEY_BYTES)
    keyring.set_password(SERVICE, account, key)
    if keyring.get_password(SERVICE, account) != key:
        raise CommandLineError("the keyring does not keep what is stored in it. Choose another one")
    return key


def _delete(account: str) -> str:
    import keyring

    keyring.delete_password(SERVICE, account)
    return ""


def _run_child(work: Callable[[str], str], account: str, output: int, report: int) -> None:
    """Do the work, write its result and the report, and end. Never returns."""
    try:
        from fastn_p2p_actors.runtime.process_setup import die_with_parent, forbid_core_files, make_undumpable

        die_with_parent()
        make_undumpable()
        forbid_core_files()
        os.write(report, _work(work, account, output))
    finally:
        os._exit(0)


def _work(work: Callable[[str], str], account: str, output: int) -> bytes:
    try:
        from keyring.errors import NoKeyringError
    except ImportError:
        return MISSING.encode()
    try:
        os.write(output, work(account).encode() + b"\n")
    except CommandLineError as error:
        return str(error).encode()[:_MAX_REPORT]
    except NoKeyringError:
        return NO_BACKEND.encode()
    except Exception as error:
        return f"the keyring refuses: {str(error) or type(error).__name__}".encode()[:_MAX_REPORT]
    return _DONE


# ── in this process ──────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _child(work: Callable[[str], str], home: Home, slot: str, seconds: float) -> Iterator[int]:
    account = f"{home.path} {slot}"
    result, output = os.pipe()
    reports, report = os.pipe()
    child = os.fork()
    if child == 0:
        _run_child(work, account, output, report)
    os.close(output)
    os.close(report)
    try:
        outcome = _report_of(reports, seconds)
        if outcome != _DONE:
            raise CommandLineError(outcome.decode(errors="replace") or "the process that reads the keyring has ended")
        yield result
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(result)
        os.close(reports)


def _report_of(descriptor: int, seconds: float) -> bytes:
    """Return the report of the child; empty if it has ended without one. Raises CommandLineError after ``seconds``."""
    end = time.monotonic() + seconds
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
        raise CommandLineError(f"the keyring did not answer within {seconds:g} s. Unlock it, and try again")
    return os.read(descriptor, _MAX_REPORT)
