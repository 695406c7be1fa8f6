"""QR code of a ticket: the characters of the terminal are the modules of the code."""

from __future__ import annotations

import segno

from fastn_p2p.cli.qr_code import qr_lines

TICKET = "fastn1" + "0123456789abcdefghijklmnopqrstuv" * 20
DARK = {" ": (True, True), "▄": (True, False), "▀": (False, True), "█": (False, False)}


def test_the_modules_are_those_of_the_text_in_upper_case() -> None:
    lines = list(qr_lines(TICKET))
    rows = [[DARK[character][half] for character in line] for line in lines for half in (0, 1)]
    code = segno.make_qr(TICKET.upper(), error="l", boost_error=False)
    assert code.mode == "alphanumeric"
    size = len(code.matrix)
    border = (len(lines[0]) - size) // 2
    assert border >= 2
    inner = [row[border : border + size] for row in rows[border : border + size]]
    assert inner == [[bool(module) for module in row] for row in code.matrix]
    assert not any(any(row) for row in rows[:border])


def test_a_ticket_fits_on_a_terminal() -> None:
    """A ticket of one endpoint has about 700 characters."""
    assert len(next(iter(qr_lines(TICKET)))) <= 100
