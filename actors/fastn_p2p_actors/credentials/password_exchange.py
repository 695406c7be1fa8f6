"""Password-authenticated key exchange (SPAKE2, RFC 9382): one key from one short secret.

An attacker that takes part learns whether one guess was right, and nothing else. Neither a recording nor any amount of
computing helps with the next guess, because the messages are independent of the secret.
"""

from __future__ import annotations

from typing import Any

from fastn_p2p_client.errors import BadMessage


class PasswordExchange:
    """Side of an exchange. Use it once.

    Args:
        password: secret that both sides have.
        first: name of the side that shows the secret. The key depends on both names.
        second: name of the side that types it.
        is_first: side that this is.

    Attributes:
        message: bytes for the other side, 33.
    """

    def __init__(self, password: bytes, first: bytes, second: bytes, *, is_first: bool) -> None:
        # imported here because only pairing needs it, and it takes 0.1 s
        from spake2 import SPAKE2_A, SPAKE2_B  # type: ignore[import-untyped]

        kind: Any = SPAKE2_A if is_first else SPAKE2_B
        self._spake: Any = kind(password, idA=first, idB=second)
        self.message: bytes = self._spake.start()

    def finish(self, message: bytes) -> bytes:
        """Return the key (32 bytes). It is the other side's only if that has the same secret and the same names.

        Raises:
            BadMessage: the message is none of such an exchange.
        """
        try:
            key: bytes = self._spake.finish(message)
        except Exception as error:  # the library checks by assertions, and by exceptions without a common base
            raise BadMessage(reason="no message of a password exchange") from error
        return key
