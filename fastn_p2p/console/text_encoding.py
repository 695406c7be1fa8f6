"""UTF-8 for names of files and for output, whatever the locale says.

Names travel between machines as UTF-8, and file systems hold bytes. Under a locale of another encoding Python would
turn names into other letters, or fail on them: files would arrive under wrong names, or not at all.
"""

from __future__ import annotations

import os
import sys


def use_utf8() -> None:
    """Begin this process anew in Python's UTF-8 mode, unless names of files are UTF-8 already."""
    if sys.getfilesystemencoding().lower().replace("_", "-") in ("utf-8", "utf8"):
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - this same program
