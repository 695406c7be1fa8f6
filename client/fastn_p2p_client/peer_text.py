"""Text by which people and programs name a peer: a petname, an ID52, a ticket, or a URI.

A URI is ``fastn-p2p://<ID52 or ticket>[/Protocol[/instance]]``. Its scheme may be in upper case. An ID52 or a ticket
may be in upper case as a whole, as QR codes have it, and may have white space in it, as mail programs break lines.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .errors import InvalidKey, InvalidName
from .keys import ID52_LENGTH
from .names import check_name
from .tickets import Ticket

SCHEME: Final = "fastn-p2p"
_PREFIX: Final = f"{SCHEME}://"


class PeerText(NamedTuple):
    """Peer, and the binding of it that a URI may name.

    Attributes:
        name: a petname, an ID52 or the text of a ticket, in lower case. It is not checked further.
        protocol, instance: empty unless a URI names them.
    """

    name: str
    protocol: str = ""
    instance: str = ""

    def check_target(self, protocol: str, instance: str) -> None:
        """Raise InvalidName if the URI names another protocol or instance than the caller does."""
        for what, named, other in (("protocol", self.protocol, protocol), ("instance", self.instance, instance)):
            if named and other and named != other:
                reason = f"the URI names the {what} {named}, and the caller {other}. Leave one of them out"
                raise InvalidName(name=self.name[:64], what="a peer", reason=reason)


def read_peer_text(text: str) -> PeerText:
    """Return the parts of a text that names a peer.

    Raises:
        InvalidKey: it is a URI of another form.
        InvalidName: a URI names a protocol or an instance that cannot have that name.
    """
    joined = "".join(text.split())
    if "://" in joined or joined[: len(_PREFIX)].lower().startswith(f"{SCHEME}:"):
        return _read_uri(joined)
    if len(joined) < ID52_LENGTH:
        return PeerText(text)
    return PeerText(_lowered(joined))


def ticket_of(text: str) -> Ticket | None:
    """Return the ticket by which a text names a peer; None if it names the peer otherwise.

    Raises:
        InvalidKey: it is a URI of another form.
        InvalidTicket: it is meant as a ticket, and is none.
    """
    name = read_peer_text(text).name
    return Ticket(name) if Ticket.is_ticket(name) else None


def name_or_id52(text: str) -> str:
    """Return the petname or the ID52 of the peer that a text names, for what needs no address of it.

    It is not checked further: a program can write any ID52 into a ticket.

    Raises:
        InvalidKey, InvalidName: it is a URI of another form.
        InvalidTicket: it is meant as a ticket, and is none.
    """
    ticket = ticket_of(text)
    return read_peer_text(text).name if ticket is None else ticket.identity.id52


def _read_uri(uri: str) -> PeerText:
    if uri[: len(_PREFIX)].lower() != _PREFIX:
        raise InvalidKey(text=uri[:80], reason=f"the URI of a peer begins with {_PREFIX}")
    if "?" in uri or "#" in uri:
        raise InvalidKey(text=uri[:80], reason="the URI of a peer has no ? and no #")
    name, *path = uri[len(_PREFIX) :].split("/")
    name = _lowered(name)
    if len(name) < ID52_LENGTH:
        reason = f"an ID52 or a ticket follows {_PREFIX}. A petname is given without it"
        raise InvalidKey(text=uri[:80], reason=reason)
    if path and not path[-1]:
        path.pop()
    if len(path) > 2:
        raise InvalidKey(text=uri[:80], reason=f"its form is {_PREFIX}ID52/Protocol/instance")
    protocol, instance = (*path, "", "")[:2]
    if path:
        check_name(protocol, "a protocol")
    if len(path) == 2:
        check_name(instance, "an instance")
    return PeerText(name, protocol, instance)


def _lowered(text: str) -> str:
    """Return a text that is in upper case as a whole in lower case, and any other text as it is."""
    return text.lower() if text.isupper() else text
