"""Line on a terminal, after a command, about what waits for the owner: new mails, file offers, access requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fastn_p2p_client.ipc.messages import WaitingItem

from .output import PROGRAM, write_message

_MOST: Final = 3
"""Identities that are named."""


class _Kind(NamedTuple):
    one: str
    many: str
    command: str
    """Command that lists them."""


_KINDS: Final = {
    "": _Kind("stranger asks for access", "strangers ask for access", "peer pending"),
    "FileTransfer": _Kind("file offer", "file offers", "files offers"),
    "Mail": _Kind("new mail", "new mails", "mail list"),
}


def write_waiting_notice(arguments: Sequence[str], items: Sequence[WaitingItem]) -> None:
    """Write the line, without what the command itself is about. Write none if nothing is left.

    Args:
        arguments: the command line without the name of the program.
        items: what waits, as the daemon has said.
    """
    text = waiting_text(arguments, items)
    if text:
        write_message(f"{PROGRAM}: {text}")


def waiting_text(arguments: Sequence[str], items: Sequence[WaitingItem]) -> str:
    """Return the line; empty if there is none."""
    command = arguments[0] if arguments else ""
    if command == "status":
        return ""
    left = [each for each in items if _command_of(each).partition(" ")[0] != command]
    names = list(dict.fromkeys(each.identity for each in left if each.identity))
    parts = [_count(each) for each in left if not each.identity]
    parts += [f"{name} has {_join([_count(each) for each in left if each.identity == name])}" for name in names[:_MOST]]
    if len(names) > _MOST:
        parts.append(f"{len(names) - _MOST} more identities have something, too")
    if not parts:
        return ""
    owner = f" --as {names[0]}" if len(names) == 1 else ""
    commands = dict.fromkeys(
        f"{PROGRAM} {known}{owner if each.identity else ''}" for each in left if (known := _command_of(each))
    )
    return "; ".join(parts) + (f". See: {', '.join(commands)}" if commands else "")


def _command_of(item: WaitingItem) -> str:
    kind = _KINDS.get(item.protocol)
    return kind.command if kind is not None else ""


def _count(item: WaitingItem) -> str:
    kind = _KINDS.get(item.protocol)
    if kind is None:
        return f"{item.count:,} waiting in {item.protocol}"
    return f"{item.count:,} {kind.one if item.count == 1 else kind.many}"


def _join(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
