"""``python -m tests.docs``: write every generated table into its page."""

from __future__ import annotations

from .pages import PAGES, generate

for page in PAGES:
    text = page.read_text()
    generated = generate(text)
    if generated != text:
        page.write_text(generated)
        print(page.name)
