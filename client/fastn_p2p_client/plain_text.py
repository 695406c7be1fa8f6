"""Escapes for untrusted text: the result cannot move a cursor, change a terminal, hide, or pretend to be another line.

Names, messages, errors and addresses come from peers, programs, configs and file systems. All of them pass one of
these functions before they are written to a terminal or a log.

Escaped (``\\x1b``, ``\\u202e``, ``\\U000e0041``; a byte that is not text as ``\\x9b``):

* controls (C0, DEL, C1), line and paragraph separators, lone surrogates;
* marks that turn the direction of text (bidi), which make ``gpj.exe`` look like ``exe.jpg``;
* all other characters without visible width: zero-width characters, fillers, tags, soft hyphens.

Kept where real text needs them and they cannot deceive: the joiners U+200C and U+200D after a virama, between Arabic or
Syriac letters and inside an emoji; one variation selector after a character that has variants. Flags of regions made
of tag characters are escaped, because the tags can carry any hidden text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

_NOT_ASCII: Final = re.compile("[^ -~]")
_JOINERS: Final = "\u200c\u200d"
_VIRAMA: Final = 9
"""Canonical combining class of the mark that joins consonants in scripts of India (RFC 5892, appendix A)."""


@cache
def _unsafe() -> re.Pattern[str]:
    """Return the pattern of characters that are escaped. Most programs never need it."""
    return re.compile(
        "["
        "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
        "\xad\u034f"  # soft hyphen, combining grapheme joiner
        "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # zero width, separators, bidi, invisible operators
        "\u115f\u1160\u3164\uffa0\u17b4\u17b5\u2800"  # fillers: invisible letters
        "\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors
        "\ud800-\udfff"  # lone surrogates
        "\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff"  # noncharacters, interlinear annotation
        "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # layout of hieroglyphs, shorthand, music
        "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags, and characters reserved for them
        + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
        + "]"
    )


def plain(text: str) -> str:
    """Return ``text`` on one line: a line feed becomes ``\\n``, a tab ``\\t``."""
    if text.isascii() and text.isprintable():
        return text
    return _unsafe().sub(_escape, text)


def plain_lines(text: str) -> str:
    """Return ``text`` with its line ends (CR LF becomes LF) and tabs, and all other escapes of ``plain``."""
    if text.isascii() and text.isprintable():
        return text
    return _unsafe().sub(_escape_on_lines, text)


def plain_json(json: str, *, only_ascii: bool = False) -> str:
    """Return ``json`` (on one line), of the same value, with ``\\uXXXX`` for the characters that ``plain`` escapes."""
    return (_NOT_ASCII if only_ascii else _unsafe()).sub(_escape_in_json, json)


def _escape_on_lines(found: re.Match[str]) -> str:
    if found[0] == "\r" and found.string[found.end() : found.end() + 1] == "\n":
        return ""
    return found[0] if found[0] in "\n\t" else _escape(found)


def _escape(found: re.Match[str]) -> str:
    if _is_needed(found):
        return found[0]
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that is not text
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()


def _escape_in_json(found: re.Match[str]) -> str:
    if found.re is _unsafe() and _is_needed(found):
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _is_needed(found: re.Match[str]) -> bool:
    """Return whether the text around the character makes it part of a visible letter or emoji."""
    character = found[0]
    if character < "\xad":
        return False
    text, at = found.string, found.start()
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    if not before or (_is_selector(before) and character not in _JOINERS):
        return False
    if _is_selector(character):
        return _has_variants(before, character, after)
    if character not in _JOINERS:
        return False
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if character == "\u200d" and _is_pictogram(after) and _is_pictogram(before, in_sequence=True):
        return True
    return _is_cursive(before) and _is_cursive(after)


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef" or character in _MONGOLIAN


_MONGOLIAN: Final = "\u180b\u180c\u180d\u180f"


def _has_variants(character: str, selector: str, after: str) -> bool:
    """Return whether the character has variants for this selector.

    Mongolian selectors belong to Mongolian letters, and those of plane 14 to ideographs. The others belong to
    ideographs, symbols, and the characters of keycaps, which U+20E3 ends.
    """
    if selector in _MONGOLIAN:
        return "\u1820" <= character <= "\u18aa"
    if "\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff":
        return True
    if not selector <= "\ufe0f":
        return False
    return _is_pictogram(character) or (character in "0123456789#*" and after == "\u20e3")


def _is_pictogram(character: str, *, in_sequence: bool = False) -> bool:
    """Return whether it is a symbol that can be an emoji; ``in_sequence``: or may stand between one and a joiner."""
    if not character or character.isascii():
        return False
    if in_sequence and (character == "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff"):
        return True
    # Extended_Pictographic is not in unicodedata: symbols, and the few marks of punctuation that are emoji.
    if unicodedata.category(character) in ("So", "Sm", "Cn"):
        return character != "\u2800"
    return character in "‼⁉〰"


def _is_cursive(character: str) -> bool:
    """Return whether it is a letter or mark of a script that is written joined from right to left."""
    return bool(character) and (
        unicodedata.bidirectional(character) == "AL" or "\u064b" <= character <= "\u0655" or character == "\u0670"
    )
