"""OpenTelemetry: spans of calls and sessions where they are made and where they are served, in the same trace.

A program that has set a tracer provider gets them, without further settings. It needs the extra ``otel``. In any other
program nothing of OpenTelemetry is imported, and a call costs one look into a dictionary more.

Layout
------

``spans``  the spans, and their attributes
"""

from __future__ import annotations

import sys
from typing import Any, Final

OTEL: Final = "opentelemetry.trace"
"""Module that a program with spans has imported: check this first where time counts."""
_LENGTH: Final = 55
_CHARACTERS: Final = "0123456789abcdef-"


def has_provider() -> bool:
    """Return whether the program has set a tracer provider."""
    trace: Any = sys.modules.get(OTEL)
    if trace is None or getattr(trace, "_TRACER_PROVIDER", trace) is None:
        return False  # the second test spares programs that import the module and set none 6 us in each call
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def safe_traceparent(text: str) -> str:
    """Return the parent of a span (W3C Trace Context, ``traceparent``), or nothing if ``text`` has another form."""
    return text if len(text) == _LENGTH and not text.strip(_CHARACTERS) else ""
