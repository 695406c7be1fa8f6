"""CurveZMQ (ZeroMQ RFC 26), the client's side: its handshake, and the encryption of frames. No input or output.

Order of a connection: send ``hello``, receive the reply, send ``initiate``, receive the reply and give it to
``finish``. Then ``seal`` and ``open`` frames.
"""

from __future__ import annotations

import secrets
from typing import Final

from .public_key_box import KEY_BYTES, make_keys, open_box, seal_box, shared_key
from .public_key_box import OVERHEAD as _BOX

_COUNTER: Final = 8
_COOKIE: Final = 96
_LONG_NONCE: Final = 16
_HELLO: Final = b"\x05HELLO\x01\x00" + bytes(72)
_WELCOME: Final = b"\x07WELCOME"
_INITIATE: Final = b"\x08INITIATE"
_READY: Final = b"\x05READY"
_MESSAGE: Final = b"\x07MESSAGE"
_HEAD: Final = len(_MESSAGE) + _COUNTER
OVERHEAD: Final = _HEAD + _BOX + 1
"""Bytes by which a sealed frame is longer than its content."""
_MORE: Final = 1
_COMMAND: Final = 2
_LAST_COUNTER: Final = 2**64 - 1


class CurveFailed(Exception):
    """The server rejects the handshake, or sends bytes that are not its own."""


class CurveClient:
    """Client side of a connection to a server whose public key is known.

    Args:
        server: public key of the server, 32 bytes.
        public: own public key, by which the server knows this client.
        secret: its secret key.
    """

    def __init__(self, server: bytes, public: bytes, secret: bytes) -> None:
        self._server = server
        self._public = public
        self._secret = secret
        self._short_public, self._short_secret = make_keys()
        self._hello_key = b""
        """Key of the server's key and the own short-lived one together."""
        self._shared = b""
        """Key of both short-lived keys together."""
        self._sent = 0
        self._received = 0

    def hello(self) -> bytes:
        """Return the first command."""
        nonce = self._next_nonce()
        self._hello_key = shared_key(self._server, self._short_secret)
        signature = seal_box(bytes(64), b"CurveZMQHELLO---" + nonce, self._hello_key)
        return _HELLO + self._short_public + nonce + signature

    def initiate(self, welcome: bytes, metadata: bytes) -> bytes:
        """Return the second command.

        Args:
            welcome: the server's reply to the first one.
            metadata: properties of this socket (ZeroMQ RFC 37).

        Raises:
            CurveFailed: the reply does not come from the server, or is an error.
        """
        start = len(_WELCOME)
        nonce, box = welcome[start : start + _LONG_NONCE], welcome[start + _LONG_NONCE :]
        if not welcome.startswith(_WELCOME) or len(box) != KEY_BYTES + _COOKIE + _BOX:
            raise CurveFailed(f"the server replied with {welcome[:16]!r}")
        content = open_box(box, b"WELCOME-" + nonce, self._hello_key)
        if content is None:
            raise CurveFailed("the server does not have its key")
        server_short, cookie = content[:KEY_BYTES], content[KEY_BYTES:]
        try:
            self._shared = shared_key(server_short, self._short_secret)
            vouch_key = shared_key(server_short, self._secret)
        except ValueError as error:
            raise CurveFailed("the server sends a key that nobody can have") from error
        vouch_nonce = secrets.token_bytes(_LONG_NONCE)
        vouch = seal_box(self._short_public + self._server, b"VOUCH---" + vouch_nonce, vouch_key)
        counter = self._next_nonce()
        proof = self._public + vouch_nonce + vouch + metadata
        return _INITIATE + cookie + counter + seal_box(proof, b"CurveZMQINITIATE" + counter, self._shared)

    def finish(self, ready: bytes) -> None:
        """Check the server's reply to the second command.

        Raises:
            CurveFailed: the server rejects this client's key, or the reply does not come from it.
        """
        if not ready.startswith(_READY):
            raise CurveFailed(f"the server replied with {ready[:16]!r}")
        self._unbox(b"CurveZMQREADY---", ready[len(_READY) :])

    def seal(self, content: bytes, more: bool) -> bytes:
        """Return a frame as it is sent. ``more``: further frames of the same message follow."""
        counter = self._next_nonce()
        flagged = (b"\x01" if more else b"\x00") + content
        return _MESSAGE + counter + seal_box(flagged, b"CurveZMQMESSAGEC" + counter, self._shared)

    def open(self, frame: bytes) -> tuple[bytes, bool]:
        """Return the content of a received frame, and whether further ones of the same message follow.

        Raises:
            CurveFailed: it does not come from the server, or comes again.
        """
        if not frame.startswith(_MESSAGE):
            raise CurveFailed("a frame that is not encrypted")
        content = self._unbox(b"CurveZMQMESSAGES", frame[len(_MESSAGE) :])
        if not content or content[0] & _COMMAND:
            raise CurveFailed("a command in place of a message")
        return content[1:], bool(content[0] & _MORE)

    def _unbox(self, prefix: bytes, sealed: bytes) -> bytes:
        """Return what is in ``sealed``: a counter and a box. The counters of the server grow."""
        counter = int.from_bytes(sealed[:_COUNTER], "big")
        if counter <= self._received:
            raise CurveFailed("a frame that comes again")
        content = open_box(sealed[_COUNTER:], prefix + sealed[:_COUNTER], self._shared)
        if content is None:
            raise CurveFailed("a frame that does not come from the server")
        self._received = counter
        return content

    def _next_nonce(self) -> bytes:
        if self._sent >= _LAST_COUNTER:
            raise CurveFailed("every counter was used")
        self._sent += 1
        return self._sent.to_bytes(_COUNTER, "big")
