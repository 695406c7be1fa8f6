"""Text of a bug report. It has no keys, passphrases and messages, and pseudonyms for names, keys and addresses."""

from __future__ import annotations

import getpass
import json
import platform
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec

from fastn_p2p_actors.daemon_settings.catalogue import SETTINGS
from fastn_p2p_actors.runtime.last_exit import read_last, read_previous
from fastn_p2p_client.control_client import list_all_identities, list_all_peers
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import GetStatus, ListGroups, Status

from ...console.control_request import request_daemon, with_daemon
from ...console.daemon_settings import resolve
from ...console.exit_codes import CommandLineError
from ...console.formatting import format_setting
from ...console.process_snapshot import read_process_file
from ..doctor.examination import examine
from ..netcheck.check import check_lines
from .log_excerpts import log_excerpts
from .pseudonyms import Pseudonyms

_TIMEOUT: Final = 5.0
_MOST: Final = 100
"""Processes, identities, peers and connections in the status, of each: a person reads it."""
_DEGRADED: Final = re.compile(r'("state": "(?:degraded|standby)): .*("[,]?)$')
"""State of a binding with words of its protocol or owner, which may name a database and its user, or a machine."""
_HEAD: Final = """\
Bug report of fastn-p2p

In it are versions, the result of `fastn-p2p doctor`, settings, `fastn-p2p status`, and the ends of the log files.
Keys, passphrases, messages, configs of protocols and the texts of protocols in logs are not in it. Names of identities,
peers and groups, ID52s, keys, tickets, addresses, hosts, and paths outside of the system are replaced by words such as
<peer-1>; the same one always by the same word. Names of protocols and instances stay. Read it before you pass it on.
"""


def make_report(home: Home, *, network: bool) -> str:
    """Return the report. Reads files, and asks the daemon if one runs.

    Args:
        network: also check the network, as ``netcheck``.
    """
    status, problem = _read_status(home)
    names, are_complete = _collect_names(home, running=status is not None)
    parts = [("Versions", _versions()), ("doctor", list(check_lines(examine(home.path, network=network))))]
    parts += [("Settings", list(_settings(home))), ("Last exits", list(_exits(home)))]
    if are_complete:
        parts.append(("status", _pretty(status) if status is not None else [problem]))
        parts += [(f"logs/{name}", lines) for name, lines in log_excerpts(home)]
    else:
        why = "left out: the names of peers and identities cannot be read, so they could not be replaced. Try with sudo"
        parts.append(("status and logs", [why]))
    text = "\n\n".join("\n".join([f"== {title} ==", *lines]) for title, lines in parts)
    pseudonyms = Pseudonyms(home.path, names, _user(), socket.gethostname())
    return f"{_HEAD}\n{pseudonyms.replace(text)}\n"


def _read_status(home: Home) -> tuple[Status | None, str]:
    try:
        return request_daemon(home.path, GetStatus(_MOST), timeout=_TIMEOUT).status, ""
    except P2PError as error:
        snapshot = read_process_file(home)
        processes = "" if snapshot is None else f" {msgspec.json.encode(snapshot).decode()}"
        return None, f"{error}{processes}"


def _collect_names(home: Home, *, running: bool) -> tuple[dict[str, set[str]], bool]:
    """Return the names to be replaced, by kind, and whether they are all."""
    names: dict[str, set[str]] = {"identity": set(), "peer": set(), "group": set()}
    are_complete = True
    try:
        if home.identities.exists():
            names["identity"] |= {each.name for each in home.identities.iterdir() if not each.name.startswith(".")}
        if home.peers.exists():
            names["peer"] |= {each.stem for each in home.peers.glob("*.json") if not each.name.startswith(".")}
        groups = home.peers / ".groups.json"
        if groups.exists():
            names["group"] |= set(json.loads(groups.read_bytes()).get("groups", ()))
    except (OSError, ValueError):
        are_complete = running
    if running:
        try:
            names["identity"] |= {each.name for each in with_daemon(home.path, list_all_identities)}
            names["peer"] |= {each.name for each in with_daemon(home.path, list_all_peers)}
            names["group"] |= {each.name for each in request_daemon(home.path, ListGroups(), timeout=_TIMEOUT).groups}
        except P2PError:
            are_complete = False
    return names, are_complete


def _versions() -> list[str]:
    release: dict[str, Any] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    return [
        f"{release.get('PRETTY_NAME', 'Linux')}, {platform.release()}, {platform.machine()}, {platform.libc_ver()[1]}"
    ]


def _settings(home: Home) -> Iterator[str]:
    try:
        resolved = resolve(home)
    except (CommandLineError, OSError) as error:
        yield str(error)
        return
    for each in SETTINGS:
        yield f"{each.key} = {' '.join(format_setting(resolved.value(each)))} ({resolved.sources[each.key]})"


def _exits(home: Home) -> Iterator[str]:
    for name, found in (("last", read_last(home)), ("before", read_previous(home))):
        if found is not None:
            yield f"{name}: {found.code}, {found}"


def _pretty(status: Status) -> list[str]:
    lines = json.dumps(msgspec.to_builtins(status), indent=1, ensure_ascii=False).splitlines()
    return [_DEGRADED.sub(r"\1 (left out: the text of a protocol)\2", line) for line in lines]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no account
        return ""
