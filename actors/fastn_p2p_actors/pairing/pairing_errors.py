"""Ends of a pairing other than success. After each of them both address books are as before.

::

    PairingError
    ├── NoRendezvous        neither LAN nor directory is on, or none works
    ├── CodeNotFound          no source knows the words
    ├── CodeExpired           no daemon has typed the words in time
    ├── WrongCode             the last two words differ
    ├── CodeUsedTwice         a third party has the same words
    ├── SameIdentity          both sides are one identity
    ├── NameInUse             the peer's name for itself means something else here
    ├── PeerEnded             the peer ended, or its connection was lost
    └── PeerRefused           the peer cannot store this identity
"""

from __future__ import annotations

from fastn_p2p_client.errors import P2PError


class PairingError(P2PError):
    """A pairing failed. Never leaves the command's process."""

    def show_with(self, command: str) -> None:
        """Name another command in the text, which shows new words."""
        self.__dict__["template"] = type(self).template.replace("fastn-p2p pair", f"fastn-p2p {command}")


class NoRendezvous(PairingError):
    code = "pairing-impossible"
    template = "The two sides cannot find each other: {reason}."
    reason: str


class CodeNotFound(PairingError):
    code = "pairing-not-found"
    template = (
        "No daemon shows these words{searched}. Check the first two words, and that `fastn-p2p pair` still waits on "
        "the other machine, in the same LAN or with the same directory"
    )
    searched: str


class CodeExpired(PairingError):
    code = "pairing-expired"
    template = "{reason}. Nothing was stored. Show new words: fastn-p2p pair"
    reason: str


class WrongCode(PairingError):
    code = "pairing-wrong-code"
    template = "{reason}. Nothing was stored. Words are good for one attempt. Show new ones: fastn-p2p pair"
    reason: str


class CodeUsedTwice(PairingError):
    code = "pairing-used-twice"
    template = (
        "{reason}: a third party may know these words. Nothing was stored. Show new words, and tell them to the right "
        "person only"
    )
    reason: str


class SameIdentity(PairingError):
    code = "pairing-same-identity"
    template = "Both sides are the identity {id52}. Nothing was stored. Choose another one: --as NAME"
    id52: str


class NameInUse(PairingError):
    """The owner has to choose a name, because the peer's own would get it calls or access of another identity."""

    code = "pairing-name-in-use"
    template = (
        "The other identity is called {name}, and here that is {use}. Nothing was stored. Choose a name: --name NAME"
    )
    name: str
    use: str


class PeerEnded(PairingError):
    code = "pairing-peer-ended"
    template = "{reason}. Nothing was stored. Show new words: fastn-p2p pair"
    reason: str


class PeerRefused(PairingError):
    code = "pairing-peer-refused"
    template = "The other daemon cannot store this identity: {reason}. Nothing was stored"
    reason: str
