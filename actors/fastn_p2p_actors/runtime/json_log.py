"""Format of log lines as JSON: one object for each record, with the fields that ``fastn-p2p logs --json`` prints."""

from __future__ import annotations

import logging
import time

import msgspec

from fastn_p2p_client.plain_text import plain, plain_lines
from fastn_p2p_client.request_id import logged_request_id

from .sampled_log import MAX_LINE

_PREFIX = '{"time":'
"""Beginning of every line, by which readers know it."""


class JsonFormatter(logging.Formatter):
    """Format of a log file for programs. A line is complete JSON of at most ``MAX_LINE`` characters.

    Args:
        actor: name of the process.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, actor: str) -> None:
        super().__init__()
        self._actor = actor

    def format(self, record: logging.LogRecord) -> str:
        message = _encodable(plain(record.getMessage()))
        trace = "\n".join(
            each
            for each in (
                self.formatException(record.exc_info) if record.exc_info else "",
                self.formatStack(record.stack_info) if record.stack_info else "",
            )
            if each
        )
        trace = _encodable(plain_lines(trace))
        longest = max(len(message), len(trace))
        while True:
            line = self._line(record, _cut(message, longest), _cut(trace, longest))
            if len(line) <= MAX_LINE:
                return line
            longest //= 2

    def _line(self, record: logging.LogRecord, message: str, trace: str) -> str:
        return msgspec.json.encode(
            {
                "time": self.formatTime(record),
                "level": record.levelname,
                "actor": self._actor,
                "logger": plain(record.name),
                "message": message,
                "trace": trace,
                "request_id": plain(logged_request_id(record)),
            }
        ).decode()


def line_without_time(line: str) -> str:
    """Return the record of a line as text without its time, as the journal gets it."""
    if not line.startswith(_PREFIX):
        return line.partition(" ")[2]
    fields = msgspec.json.decode(line)
    request = f"[{found}]" if (found := fields.get("request_id")) else ""
    text = f"{fields['level']} {fields['logger']}{request}: {fields['message']}"
    return f"{text}\n{fields['trace']}" if fields["trace"] else text


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
