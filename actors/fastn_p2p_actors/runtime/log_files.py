"""Log file of one process: ``logs/<name>.log`` in the home, readable only by its owner."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import Any, Final

from fastn_p2p_client.home import Home
from fastn_p2p_client.plain_text import plain, plain_lines
from fastn_p2p_client.request_id import logged_request_id

from .sampled_log import SampledFileHandler

STREAM_VARIABLE: Final = "JOURNAL_STREAM"
"""Environment variable of a service whose standard error leads to the journal of systemd."""
LEVEL_VARIABLE: Final = "FASTN_LOG"
"""Environment variable with the level: ``DEBUG``, ``INFO`` (default), ``WARNING`` or ``ERROR``."""
FORMAT_VARIABLE: Final = "FASTN_LOG_FORMAT"
"""Environment variable with the format of the files: ``text`` (default) or ``json``."""

FILE_BYTES: Final = 5 * 1024 * 1024
FILES_KEPT: Final = 3


class _Formatter(logging.Formatter):
    """Format of a log line: ``2026-01-31T12:00:00.000Z INFO vault: …``; times are UTC.

    A line about a call or session has its request id after the logger: ``INFO network[5f0c2b9a1d3e-7]: …``.

    A message is one line. Control characters are escaped in messages and tracebacks, because parts of both may come
    from peers and must not reach the reader's terminal.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:
        request_id = logged_request_id(record)
        record.request = f"[{request_id}]" if request_id else ""
        return plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return plain_lines(super().formatException(ei))


def configure_logging(home: Home, name: str) -> logging.Logger:
    """Write all log lines of this process to its file, and return the logger called ``name``.

    The file appears with the first line. It is rotated at 5 MB, and three old files are kept. During a flood, lines are
    left out and counted, so that the files reach back a day. A full disk or a missing directory costs log lines, and
    nothing else. Under systemd, the journal gets the same lines.
    """
    wanted = os.environ.get(LEVEL_VARIABLE, "INFO").strip().upper()
    level = logging.getLevelNamesMapping().get(wanted)
    handler = make_handler(home, name)
    stream = os.environ.get(STREAM_VARIABLE)
    if stream:
        from .journal import find_journal

        journal = find_journal(name, stream)
        handler.mirror = None if journal is None else journal.write
    logging.raiseExceptions = False
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    if root.level != (logging.INFO if level is None else level):  # to set it visits every logger there is
        root.setLevel(logging.INFO if level is None else level)
    logger = logging.getLogger(name)
    if level is None:
        logger.warning(
            "%s=%s is no log level; using INFO (levels: DEBUG, INFO, WARNING, ERROR)", LEVEL_VARIABLE, wanted
        )
    return logger


def set_level(level: str) -> None:
    """Log lines of this level and above in this process from now on. An unknown level changes nothing."""
    number = logging.getLevelNamesMapping().get(level)
    if number is not None:
        logging.getLogger().setLevel(number)


def make_handler(home: Home, name: str) -> SampledFileHandler:
    """Return the handler that writes the log file of a process."""
    handler = SampledFileHandler(home.logs / f"{name}.log", file_bytes=FILE_BYTES, kept=FILES_KEPT)
    if os.environ.get(FORMAT_VARIABLE, "").strip().lower() == "json":
        from .json_log import JsonFormatter, line_without_time

        handler.setFormatter(JsonFormatter(name))
        handler.without_time = line_without_time
    else:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s"))
    return handler


def create_log_file(home: Home, name: str, user: int) -> None:
    """Make the log file of a process that may make no files in ``logs/``, and give it to its user. Only root can."""
    handler = SampledFileHandler(home.logs / f"{name}.log", file_bytes=FILE_BYTES, kept=FILES_KEPT)
    with suppress(OSError):
        handler.confine()
        os.chown(handler.baseFilename, user, -1)
    handler.close()


def confine_logging() -> None:
    """Prepare this process's log file for a sandbox in which no file can be made in ``logs/``."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, SampledFileHandler):
            handler.confine()
