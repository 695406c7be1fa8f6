"""Errors of PostgreSQL in words for the owner of what is stored there: what is wrong, and what to do."""

from __future__ import annotations

from typing import Final

import psycopg

from ..errors import P2PError
from .postgres_url import PostgresUrl

_OF_ONE_STATEMENT: Final = frozenset({"20", "21", "22", "23", "2F", "34", "42", "44", "54", "P0"})
"""Classes of codes of errors that concern one statement: wrong data, broken rules, a limit that its values exceed."""


def is_lost(error: Exception) -> bool:
    """Return whether a connection is not used any more after an error: the server has ended it, or has no room."""
    if not isinstance(error, psycopg.Error):
        return False
    return not error.sqlstate or error.sqlstate[:2] not in _OF_ONE_STATEMENT


def describe_error(error: Exception, url: PostgresUrl) -> str:
    """Return what is wrong and what to do, in one line without secrets."""
    if isinstance(error, P2PError):
        return str(error)
    code = getattr(error, "sqlstate", None) or ""
    text = " ".join(str(error).split())[:300]
    advice = _ADVICE.get(code) or _ADVICE.get(code[:3])
    if advice is None:
        advice = "See the log of the database server" if code else _NOT_CONNECTED
    return f"{url}: {text.rstrip('.')}. {advice}"


_NOT_CONNECTED: Final = "Start the server if it does not run, or correct user, database and passfile in the config"
"""Without a code: the library gives none for connections that fail."""
_ADVICE: Final = {
    "53100": "The disk of the database server is full: make room there",
    "25006": "The database is read-only: connect to the primary server",
    "42501": "The user lacks a right: GRANT CREATE ON DATABASE",
    "57P": "It connects again by itself when the server is back",
}
