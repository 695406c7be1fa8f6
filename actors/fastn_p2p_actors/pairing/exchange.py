"""Exchange between the two sides of a pairing: proof of the code, then names and tickets.

::

    joiner                                   host
    password exchange (33 bytes)         →
                                         ←   password exchange (33 bytes)
    box: commitment to introduction      →                                     proves the code to the host
                                         ←   box: introduction, nonce          proves the code to the joiner
    box: introduction, nonce             →
                                         ←   box: verdict                      after some time for third parties
    box: verdict: stored                 →
                                         ←   box: verdict: stored

Boxes are encrypted under keys of the password exchange, one for each direction. The names in the password exchange are
the endpoints that the QUIC handshakes have proved, so a third party cannot pass messages on between two connections.

The fingerprint is a hash of everything that was said. The joiner commits to its introduction before it sees the host's
nonce. So a third party that knows the code, and stands between both sides, cannot search for keys whose fingerprints
are the same: nine digits are enough.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, TypeVar

import msgspec

from fastn_p2p_client.errors import BadMessage

from ..credentials.password_exchange import PasswordExchange
from ..credentials.secret_box import open_box, seal_box
from ..network.transport.message_channel import Channel, ChannelClosed

WRONG_CODE: Final = b"wrong code"
"""Message outside of a box, by which the host refuses a joiner that has other words."""
_NONCE_BYTES: Final = 32
_KEY_BYTES: Final = 32
_DIGITS: Final = 9
MAX_REASON: Final = 300
"""Characters of a reason from the peer that are shown."""


class Introduction(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Identity of one side."""

    name: str
    """Name that its owner gave it."""
    ticket: str
    nonce: bytes


class Commitment(msgspec.Struct, frozen=True, array_like=True, tag=2):
    digest: bytes
    """Hash of the encoded introduction that will follow."""


class Verdict(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Word of one side on whether it stores the other."""

    code: str = ""
    """Empty for yes; else the code of an error."""
    reason: str = ""


class WrongProof(Exception):
    """The peer has another code."""


class VerdictReceived(Exception):
    """The peer has sent a verdict before its turn: it ends the pairing."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


_decoder: Final = msgspec.msgpack.Decoder(Introduction | Commitment | Verdict)
MessageT = TypeVar("MessageT", Introduction, Commitment, Verdict)


class Exchange:
    """Part of one side in an exchange.

    Args:
        channel: to the peer.
        code: the four words.
        own: public key of this side's endpoint.
        peer: public key of the peer's endpoint.
        is_host: True at the side that shows the words.
    """

    def __init__(self, channel: Channel, code: str, own: bytes, peer: bytes, *, is_host: bool) -> None:
        self._channel = channel
        self._is_host = is_host
        first, second = (own, peer) if is_host else (peer, own)
        self._password = PasswordExchange(code.encode(), first, second, is_first=is_host)
        self._send_key = self._receive_key = b""
        self._transcript = hashlib.blake2b(person=b"fastn-p2p/pairfp")

    async def prove_as_host(self) -> Commitment:
        """Return the joiner's commitment, which proves that it has the code.

        Raises:
            WrongProof: it has another one. Nothing was sent to it that a wrong guess could be told by.
            ChannelClosed, BadMessage: it is no joiner, and has learned nothing about the code.
        """
        message = await self._channel.receive()
        self._derive(self._password.finish(message), message, self._password.message)
        await self._channel.send(self._password.message)
        return self._opened(await self._channel.receive(), Commitment)

    async def reject_code(self) -> None:
        """Tell a joiner that it has another code. Raises ChannelClosed."""
        await self._channel.send(WRONG_CODE)

    async def prove_as_joiner(self, own: Introduction) -> Introduction:
        """Prove the code to the host, and return its introduction after sending ``own``.

        Raises:
            WrongProof: the host has another code.
            VerdictReceived: the host has ended the pairing, and says why.
            ChannelClosed, BadMessage: it is no host, or has ended.
        """
        await self._channel.send(self._password.message)
        message = await self._channel.receive()
        self._derive(self._password.finish(message), self._password.message, message)
        await self.send(Commitment(_digest(own)))
        box = await self._channel.receive()
        if box == WRONG_CODE:
            raise WrongProof
        introduction = self._opened(box, Introduction)
        await self.send(own)
        return introduction

    async def introduce_as_host(self, own: Introduction, commitment: Commitment) -> Introduction:
        """Send ``own``, and return the joiner's introduction. Raises like ``prove_as_host``."""
        await self.send(own)
        introduction = await self.receive(Introduction)
        if _digest(introduction) != commitment.digest:
            raise BadMessage(reason="another introduction than the joiner had announced")
        return introduction

    async def send(self, message: Introduction | Commitment | Verdict) -> None:
        """Send a message in a box. Raises ChannelClosed."""
        encoded = msgspec.msgpack.encode(message)
        if not isinstance(message, Verdict):
            self._transcript.update(len(encoded).to_bytes(4, "big") + encoded)
        await self._channel.send(seal_box(self._send_key, encoded))

    async def receive(self, kind: type[MessageT]) -> MessageT:
        """Return the next message.

        Raises:
            BadMessage: it is another one.
            VerdictReceived: it is a verdict before its turn.
            ChannelClosed: the peer has ended.
        """
        try:
            return self._opened(await self._channel.receive(), kind)
        except WrongProof:
            raise BadMessage(reason="a message of a third party") from None

    def fingerprint(self) -> str:
        """Return nine digits that are the same on both sides, unless a third party stands between them."""
        number = int.from_bytes(self._transcript.digest(), "big") % 10**_DIGITS
        digits = f"{number:0{_DIGITS}}"
        return " ".join(digits[start : start + 3] for start in range(0, _DIGITS, 3))

    def close(self) -> None:
        self._channel.close()

    async def wait_closed(self) -> None:
        """Wait until the peer has ended."""
        try:
            while True:
                await self._channel.receive()
        except ChannelClosed:
            return

    def _derive(self, key: bytes, of_joiner: bytes, of_host: bytes) -> None:
        self._transcript.update(of_joiner + of_host)
        to_host, to_joiner = (
            hashlib.blake2b(key, digest_size=_KEY_BYTES, person=person).digest()
            for person in (b"fastn-p2p/tohost", b"fastn-p2p/tojoin")
        )
        self._send_key, self._receive_key = (to_joiner, to_host) if self._is_host else (to_host, to_joiner)

    def _opened(self, box: bytes, kind: type[MessageT]) -> MessageT:
        plain = open_box(self._receive_key, box)
        if plain is None:
            raise WrongProof
        try:
            message = _decoder.decode(plain)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise BadMessage(reason="a message of a pairing that this version does not know") from None
        if isinstance(message, Verdict):
            if kind is not Verdict:
                raise VerdictReceived(message)
        else:
            self._transcript.update(len(plain).to_bytes(4, "big") + plain)
        if not isinstance(message, kind):
            raise BadMessage(reason="a message of a pairing before its turn")
        return message


def new_introduction(name: str, ticket: str) -> Introduction:
    """Return the introduction of an identity, with a new nonce."""
    return Introduction(name, ticket, secrets.token_bytes(_NONCE_BYTES))


def _digest(introduction: Introduction) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(introduction), digest_size=32, person=b"fastn-p2p/pairin").digest()
