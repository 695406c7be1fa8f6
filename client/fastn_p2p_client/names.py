"""Rules for names of identities, protocols, instances, commands and peers, in programs and in the daemon."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

from .errors import InvalidName
from .keys import ID52_LENGTH
from .limits import MAX_NAME

NamedThing: TypeAlias = Literal[
    "an identity", "a protocol", "an instance", "a command", "a peer", "a group", "a slot", "a replica"
]
"""Kind of a named object, as error messages say it."""


class _Rule(NamedTuple):
    pattern: str
    words: str


_RULES: Final[dict[NamedThing, _Rule]] = {
    "an identity": _Rule(
        r"[a-z][a-z0-9_-]*", "it starts with a lower-case letter, then lower-case letters, digits, - and _"
    ),
    "a protocol": _Rule(r"[A-Za-z][A-Za-z0-9]*", "it starts with a letter, then letters and digits"),
    "an instance": _Rule(
        r"[a-z0-9][a-z0-9_-]*",
        "it starts with a lower-case letter or a digit, then lower-case letters, digits, - and _",
    ),
    "a command": _Rule(
        r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*",
        "it is words with dots between them, each a lower-case letter, then lower-case letters, digits, - and _",
    ),
    "a peer": _Rule(
        r"[a-z][a-z0-9_-]*", "it starts with a lower-case letter, then lower-case letters, digits, - and _"
    ),
    "a group": _Rule(
        r"[a-z][a-z0-9_-]*", "it starts with a lower-case letter, then lower-case letters, digits, - and _"
    ),
    "a slot": _Rule(
        r"[a-z][a-z0-9_-]*", "it starts with a lower-case letter, then lower-case letters, digits, - and _"
    ),
    "a replica": _Rule(
        r"[a-z0-9][a-z0-9_-]*",
        "it starts with a lower-case letter or a digit, then lower-case letters, digits, - and _",
    ),
}

_ID52_SHAPED: Final = rf"[0-9a-v]{{{ID52_LENGTH}}}"
_compile: Final = cache(re.compile)
"""Compiles a pattern at its first use: most programs check no name."""


def check_name(name: str, what: NamedThing) -> str:
    """Return ``name`` if it is a valid name of ``what``. A valid name is safe as a part of a file name.

    Raises:
        InvalidName: it has the wrong length or characters, or it is a peer's and looks like an ID52.
    """
    rule = _RULES[what]
    if not name:
        reason = "it is empty"
    elif len(name) > MAX_NAME:
        reason = f"it has {len(name)} characters, the limit is {MAX_NAME}"
    elif _compile(rule.pattern).fullmatch(name) is None:
        reason = rule.words
    elif what == "a peer" and _compile(_ID52_SHAPED).fullmatch(name) is not None:
        reason = "it looks like an ID52"
    else:
        return name
    raise InvalidName(name=name[: 2 * MAX_NAME], what=what, reason=reason)
