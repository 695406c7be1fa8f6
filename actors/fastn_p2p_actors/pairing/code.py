"""Codes of words of a list of 2,048, such as the four words of a pairing, and how owners type them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

WORDS: Final = 4
"""Words of a pairing: 44 bits."""
MEETING_WORDS: Final = 2
"""Words at the beginning that only find the host. The others are never in a record."""
PREFIX: Final = 4
"""Letters that tell two words apart."""


class InvalidCode(ValueError):
    """The text is no code. The message says which word is wrong."""


@cache
def word_list() -> dict[str, str]:
    """Return the words by their first four letters, in alphabetical order."""
    text = files("fastn_p2p_actors.pairing").joinpath("words.txt").read_text("ascii")
    return {word[:PREFIX]: word for word in text.split()}


def new_code(count: int = WORDS) -> str:
    """Return random words with spaces between them, 11 bits each."""
    words = list(word_list().values())
    return " ".join(secrets.choice(words) for _ in range(count))


def matching_words(beginning: str) -> list[str]:
    """Return the words that begin so."""
    lower = beginning.lower()
    return [word for word in word_list().values() if word.startswith(lower)]


def read_code(texts: Sequence[str]) -> str:
    """Return the code that an owner has typed, with single spaces.

    Upper case, and hyphens, commas or dots between words are accepted. Of each word the first four letters are enough.

    Args:
        texts: one word each, or several in one text.

    Raises:
        InvalidCode: there are not four words, or one is not in the list.
    """
    typed = [word for word in re.split(r"[\s,.;_-]+", " ".join(texts).lower()) if word]
    if len(typed) != WORDS:
        raise InvalidCode(f"a code has {WORDS} words, and these are {len(typed)}")
    return " ".join(known_word(word) for word in typed)


def meeting_words(code: str) -> str:
    """Return the words of a code that find the host."""
    return " ".join(code.split()[:MEETING_WORDS])


def known_word(typed: str) -> str:
    """Return the word of the list of which this is the beginning, at least its first four letters.

    Raises:
        InvalidCode: there is none. The message has a similar word.
    """
    word = word_list().get(typed[:PREFIX])
    if word is not None and word.startswith(typed):
        return word
    similar = matching_words(typed[:2])
    from difflib import get_close_matches

    near = get_close_matches(typed, similar, n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    raise InvalidCode(f"{typed[:32]!r} is not one of the words{hint}")
