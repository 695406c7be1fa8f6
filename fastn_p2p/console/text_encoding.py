"""UTF-8 for names of files and for output in every locale.

Names are sent to peers as UTF-8, and file systems store bytes. Under a locale with another encoding Python would change
names or fail on them, so that files would arrive under wrong names or not at all.
"""

from __future__ import annotations

import os
import sys

from .program_restart import restart_program


def use_utf8() -> None:
    """Restart this process in Python's UTF-8 mode, unless the encoding of file names is already UTF-8."""
    if sys.getfilesystemencoding().lower().replace("_", "-") in ("utf-8", "utf8"):
        return
    os.environ["PYTHONUTF8"] = "1"  # for child processes
    restart_program("-X", "utf8")
