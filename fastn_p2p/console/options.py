"""Options and arguments of several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from .exit_codes import CommandLineError
from .parameters import Argument, Invocation, Option


def _home(context: Invocation, value: Path | None) -> Path | None:
    """Return the home of this command. The option may stand before or after the command; the last one counts."""
    if value is not None:
        context.obj = value
    chosen: Path | None = context.obj
    return chosen


HomeOption = Annotated[
    Path | None,
    Option(
        "--home",
        metavar="DIRECTORY",
        help="The daemon's home directory.  [env: FASTN_HOME; default: ~/.fastn]",
        callback=_home,
    ),
]

JsonOption = Annotated[bool, Option("--json", help="Print JSON on one line.")]


ErrorsOption = Annotated[bool, Option("--json", help="Print an error as JSON.")]

SettingArgument = Annotated[
    str,
    Argument(metavar="KEY", help="Key of the setting, such as network.relays."),
]

NameArgument = Annotated[str, Argument(metavar="NAME", help="Name of the identity.", complete="identity")]

IdentityArgument = Annotated[str, Argument(metavar="IDENTITY", help="Name of the identity.")]

ProtocolOption = Annotated[str, Option("--protocol", metavar="PROTOCOL", help="Name of the protocol.")]

GrantOption = Annotated[bool, Option("--yes", help="Grant the permissions that the protocol needs.")]

AddedOption = Annotated[
    list[str] | None,
    Option(
        "--grant",
        metavar="PERMISSION",
        help="Grant its code more than it declares: `read PATH`, `write PATH`, `connect HOST:PORT`, `listen HOST:PORT` "
        "or `program PATH`. Can be repeated.",
    ),
]

YesOption = Annotated[bool, Option("--yes", help="Do not ask for confirmation.")]

ProtocolArgument = Annotated[str, Argument(metavar="PROTOCOL", help="Name of the protocol.")]

InstanceArgument = Annotated[str, Argument(metavar="[INSTANCE]", help="Name of the instance.")]

InstanceOption = Annotated[str, Option("--instance", "--alias", metavar="INSTANCE", help="Name of the instance.")]

_TARGETED: Final = frozenset({"call", "stream", "explain"})
"""Commands that use the protocol and the instance of a URI. The others use one protocol, or none."""
_PROTOCOLS: Final = {"chat": "Chat", "files": "FileTransfer", "mail": "Mail", "forward": "Tunnel", "open": "Web"}
"""Protocol of each other command that uses one."""


def _peer(context: Invocation, value: str) -> str:
    """Check the form of a URI, and return the peer that it names; the whole URI for commands that use its protocol."""
    from fastn_p2p_client.peer_text import read_peer_text

    command = context.command_path.split()[1:2]
    if command and command[0] in _TARGETED:
        return value
    named = read_peer_text(value)
    if command and command[0] in _PROTOCOLS:
        named.check_target(_PROTOCOLS[command[0]], "")
    return named.name


def call_target(peer: str, protocol: str, instance: str) -> tuple[str, str, str]:
    """Return peer, protocol and instance of a call. A URI in place of PEER may name the last two.

    Raises:
        InvalidKey, InvalidName: the URI has another form, or names something else than the arguments.
    """
    from fastn_p2p_client.limits import DEFAULT_INSTANCE
    from fastn_p2p_client.peer_text import read_peer_text

    named = read_peer_text(peer)
    named.check_target(protocol, "" if instance == DEFAULT_INSTANCE else instance)
    return named.name, protocol or named.protocol, named.instance or instance


def required_target(peer: str, protocol: str, instance: str) -> tuple[str, str, str]:
    """Return the same as ``call_target``.

    Raises:
        CommandLineError: neither the arguments nor the URI name a protocol.
    """
    target = call_target(peer, protocol, instance)
    if not target[1]:
        raise CommandLineError("Missing argument 'PROTOCOL'. It can also be a part of PEER: fastn-p2p://ID52/PROTOCOL")
    return target


PeerArgument = Annotated[
    str,
    Argument(
        metavar="PEER",
        help="Petname, ID52, ticket, fastn-p2p:// URI, or name of an identity of this daemon.",
        callback=_peer,
    ),
]


def to_contact(value: str) -> str:
    """Return the petname or the ID52 of a peer that is not called: a URI or a ticket says more than is needed."""
    from fastn_p2p_client.peer_text import name_or_id52

    return name_or_id52(value)


def to_contacts(values: list[str] | None) -> list[str] | None:
    return values and list(map(to_contact, values))


ContactArgument = Annotated[
    str, Argument(metavar="PEER", help="Petname, ID52, ticket, or fastn-p2p:// URI.", callback=to_contact)
]

ContactsArgument = Annotated[
    list[str],
    Argument(metavar="PEERS", help="Petnames, ID52s, tickets, or fastn-p2p:// URIs.", callback=to_contacts),
]

TargetProtocolArgument = Annotated[
    str,
    Argument(metavar="PROTOCOL", help="Name of the protocol. Not needed if PEER is a URI that names it."),
]

AsOption = Annotated[
    str | None,
    Option(
        "--as",
        "--identity",
        metavar="NAME",
        help="Identity that calls. Needed if several are online.",
        complete="identity",
    ),
]

OwnerOption = Annotated[
    str | None,
    Option(
        "--as",
        metavar="NAME",
        help="The identity that owns it; needed when several are online.",
        complete="identity",
    ),
]

FilesInstanceOption = Annotated[
    str, Option("--instance", metavar="INSTANCE", help="The instance of FileTransfer.", show_default=True)
]

OfferArgument = Annotated[
    str, Argument(metavar="ID", help="The offer's ID, from `fastn-p2p files offers`.", complete="offer")
]

EventsOption = Annotated[bool, Option("--json", help="Print events as JSON, one on each line.")]

MailboxOption = Annotated[
    str, Option("--instance", metavar="INSTANCE", help="The instance of Mail.", show_default=True)
]

MailNumbersArgument = Annotated[
    list[int], Argument(metavar="N...", min=1, help="The mails' numbers, as the list shows them.")
]

MailJsonOption = Annotated[bool, Option("--json", help="Print JSON, one mail on each line.")]


def make_directory(directory: Path, option: str) -> None:
    """Make the directory that an option names, unless it exists.

    Raises:
        CommandLineError: it cannot be made, or is not a directory.
    """
    try:
        directory.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise CommandLineError(f"{option}: there is no directory {str(directory.parent)!r}") from None
    except FileExistsError:
        raise CommandLineError(f"{option}: {str(directory)!r} is not a directory") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandLineError(f"{option}: the directory {str(directory)!r} cannot be made: {reason}") from None
