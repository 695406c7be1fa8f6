"""The log file of one process: ``logs/<name>.log`` in the home, readable by its owner alone."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Final

from fastn_p2p_client.home import Home
from fastn_p2p_client.plain_text import plain, plain_lines

from .sampled_log import SampledFileHandler

__all__ = ["LEVEL_VARIABLE", "configure_logging"]

LEVEL_VARIABLE: Final = "FASTN_LOG"
"""Environment variable with the level: ``DEBUG``, ``INFO`` (default), ``WARNING`` or ``ERROR``."""

FILE_BYTES: Final = 5 * 1024 * 1024
FILES_KEPT: Final = 3


class _Formatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO vault: …``; times are UTC.

    A message is one line, and nothing in it or in a traceback does anything to the terminal on which it is read:
    parts of both can have come from peers.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return plain_lines(super().formatException(ei))


def configure_logging(home: Home, name: str) -> logging.Logger:
    """Sends everything that this process logs to its file, and returns the logger called ``name``.

    The file appears with the first line, is rotated at 5 MB and three old ones are kept. In a flood, lines are left
    out and counted, so that the files reach back a day. A disk that is full or a directory that is gone costs log
    lines, and nothing else.
    """
    wanted = os.environ.get(LEVEL_VARIABLE, "INFO").strip().upper()
    level = logging.getLevelNamesMapping().get(wanted)
    handler = SampledFileHandler(home.logs / f"{name}.log", file_bytes=FILE_BYTES, kept=FILES_KEPT)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.raiseExceptions = False
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO if level is None else level)
    logger = logging.getLogger(name)
    if level is None:
        logger.warning("%s=%s is no level; taking INFO", LEVEL_VARIABLE, wanted)
    return logger
