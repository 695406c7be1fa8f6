"""Answers that do not come from the service: plain text that says what is wrong, and what to do."""

from __future__ import annotations

from http import HTTPStatus


def error_response(status: int, text: str, *, has_body: bool = True) -> bytes:
    """Return a complete response, after which the connection ends.

    Args:
        text: one or more lines for people.
        has_body: False as answer to HEAD.
    """
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}\n\n{text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {phrase}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")
    return head + (body if has_body else b"")
