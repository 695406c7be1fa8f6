"""Number of lines that a function executes: a cost that does not depend on the machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["count_executed_lines"]


def count_executed_lines(work: Callable[[], object]) -> int:
    """Return the number of lines that ``work`` executes. Finalizers of other tests' garbage do not count."""
    steps = 0

    def trace(_frame: object, event: str, _: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return steps
