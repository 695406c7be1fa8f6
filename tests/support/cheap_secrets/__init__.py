"""Passphrases that cost next to nothing, for a daemon with ``CHEAP_SECRETS`` in its ``PYTHONPATH``.

Each derivation takes a second of processor time by default, and a test of many commands pays a dozen. Tests of the
vault and of backups have the real costs.

Layout: ``sitecustomize`` is what each interpreter imports from there when it starts.
"""

from pathlib import Path
from typing import Final

__all__ = ["CHEAP_SECRETS"]

CHEAP_SECRETS: Final = Path(__file__).parent
