"""Forms of a secret that opens a slot: a random key, a recovery code, or else a passphrase.

Only single bytes are looked at, so no copy of a secret becomes a Python object.
"""

from __future__ import annotations

from typing import Final

from .passphrase import Secret

KEY_DIGITS: Final = 64
"""Hexadecimal digits of a random key: 256 bits."""
RECOVERY_WORDS: Final = 12
"""Words of a recovery code, from a list of 2,048: 132 bits.

More than the 128 bits with which an Ed25519 key resists, so a longer code would protect nothing better. Argon2id makes
each guess as slow as one at a passphrase.
"""
WORD_LETTERS: Final = 4
"""Letters of a word that count: they tell any two words of the list apart."""

_HEXADECIMAL: Final = frozenset(b"0123456789abcdef")
_BETWEEN: Final = frozenset(b" \t,.;_-")
_SPACE: Final = 0x20
_LOWER_CASE: Final = 0x20
"""Bit that turns a letter of ASCII into lower case."""


def is_key(secret: Secret) -> bool:
    """Return whether the secret has the form of a random key: ``KEY_DIGITS`` lower-case hexadecimal digits."""
    return secret.length == KEY_DIGITS and all(byte in _HEXADECIMAL for byte in secret.view)


def copy_recovery_code(secret: Secret, target: Secret) -> bool:
    """Write a recovery code to ``target`` in its one spelling: four letters of each word, and one space between words.

    Upper case, and hyphens, commas, dots or several spaces between words, mean the same code.

    Returns:
        False if the secret has not the form of a recovery code. Then ``target`` must not be used.
    """
    words = letters = length = 0
    out = target.page
    for byte in secret.view:
        if byte in _BETWEEN:
            letters = 0
            continue
        lower = byte | _LOWER_CASE
        if not ord("a") <= lower <= ord("z"):
            return False
        if letters == 0:
            words += 1
            if words > RECOVERY_WORDS:
                return False
            if length:
                out[length] = _SPACE
                length += 1
        letters += 1
        if letters <= WORD_LETTERS:
            out[length] = lower
            length += 1
    target.length = length
    return words == RECOVERY_WORDS
