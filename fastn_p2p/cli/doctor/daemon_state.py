"""Checks of the daemon: its processes, its vault, and the warnings of ``status``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastn_p2p_actors.runtime.last_exit import read_last
from fastn_p2p_client.errors import DaemonNotRunning, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import GetHealth, GetStatus, VaultInfo

from ...console.control_request import request_daemon
from ..netcheck.check import OK, PROBLEM, UNKNOWN, WARNING, Check
from ..vault_text import vault_state

_TIMEOUT: Final = 5.0
"""Seconds for each request."""


def check_daemon(home: Home) -> Iterator[Check]:
    """Return checks of the daemon of ``home``, and of its vault."""
    try:
        problems = request_daemon(home.path, GetHealth(), timeout=_TIMEOUT).problems
        status = request_daemon(home.path, GetStatus(), timeout=_TIMEOUT).status
    except DaemonNotRunning:
        yield _stopped(home)
        yield _vault_on_disk(home)
        return
    except P2PError as error:
        yield Check(name="daemon", state=PROBLEM, text=str(error), advice=f"see the files in {home.logs}")
        return
    for each in problems:
        if each.code != "vault-locked":  # a line of its own
            advice = f"see {home.logs / f'{each.part}.log'}"
            yield Check(name="daemon", state=PROBLEM, text=each.text, advice=advice)
    if not problems:
        asleep = f", {status.asleep_total:,} of them asleep" if status.asleep_total else ""
        online = f"{status.online_total:,} identities are online{asleep}"
        text = f"all {status.processes_total:,} processes are well, {online}"
        yield Check(name="daemon", state=OK, text=text)
    texts = {each.text for each in problems}
    for warning in status.warnings:
        if warning not in texts:
            yield Check(name="status", state=WARNING, text=warning)
    if status.vault is not None:
        yield _vault(status.vault)


def _stopped(home: Home) -> Check:
    last = read_last(home)
    advice = "start it: fastn-p2p daemon"
    if last is not None and last.code:
        return Check(name="daemon", state=PROBLEM, text=f"none is running; the last one ended: {last}", advice=advice)
    return Check(name="daemon", state=UNKNOWN, text="none is running", advice=advice)


def _vault_on_disk(home: Home) -> Check:
    try:
        encrypted = home.vault_slots.exists()
    except OSError as error:
        return Check(name="vault", state=UNKNOWN, text=f"{home.vault_slots}: {error.strerror}")
    if encrypted:
        return Check(name="vault", state=OK, text="the keys are encrypted")
    if not home.vault.exists():
        return Check(name="vault", state=OK, text="there are no keys yet")
    return _vault(VaultInfo(encrypted=False, locked=False))


def _vault(found: VaultInfo) -> Check:
    text, _, advice = vault_state(encrypted=found.encrypted, locked=found.locked, until=found.locks_at).partition(": ")
    if found.locked:
        return Check(name="vault", state=PROBLEM, text=text, advice=advice)
    return Check(name="vault", state=OK if found.encrypted else WARNING, text=text, advice=advice)
