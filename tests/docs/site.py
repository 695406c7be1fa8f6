"""``python -m tests.docs.site DIRECTORY``: write the pages of the documentation site, and its configuration.

The site has the pages of ``docs/``, some of other folders under names of their own, and pages that are made from the
code. Links between them are rewritten; links to other files of the repository become the name of the file.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fastn_p2p.cli.manual import markdown

from .python_reference import python_reference
from .tables import ROOT

DOCS: Final = ROOT / "docs"
OF_OTHER_FOLDERS: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "examples/pinboard/README.md": "pinboard.md",
    "clients/javascript/README.md": "javascript.md",
}
"""Path in the repository → name on the site."""
GENERATED: Final = {"command-line.md": markdown, "python-api.md": python_reference}
"""Name on the site → its text."""
_LEFT_OUT: Final = DOCS / "README.md"
"""Index of the pages: the site's navigation stands for it."""
_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def pages() -> dict[str, str]:
    """Return the pages of the site by name."""
    files = {file: file.name for file in sorted(DOCS.glob("*.md")) if file != _LEFT_OUT}
    files |= {ROOT / path: name for path, name in OF_OTHER_FOLDERS.items()}
    names = {**files, _LEFT_OUT: "index.md"}
    made = {name: _with_links(file, file.read_text(), names) for file, name in files.items()}
    return made | {name: make() for name, make in GENERATED.items()}


def _with_links(file: Path, text: str, names: dict[Path, str]) -> str:
    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if not target or ":" in target:
            return found[0]
        path = (file.parent / target).resolve()
        if path in names:
            is_name = words in (target, path.name, str(path.relative_to(ROOT)))
            return f"[{_title(path) if is_name else words}]({names[path]}{anchor})"
        if path.parent == DOCS:
            return found[0]
        return words if words.startswith("`") else f"{words} (`{path.relative_to(ROOT)}`)"

    text = re.sub(r"(!\[[^\]]*\]\()(?:\.\./)*(?:docs/)?", r"\1", text)  # pictures lie beside the pages
    parts = re.split(r"(^```.*?^```\n)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))


def _title(page: Path) -> str:
    return page.read_text().partition("\n")[0].removeprefix("# ")


def navigation(entries: list[Any]) -> Iterator[str]:
    """Yield the name of each page in the navigation."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from navigation(value if isinstance(value, list) else [value])


def configuration() -> dict[str, Any]:
    """Return the configuration of the site."""
    return tomllib.loads((DOCS / "site.toml").read_text())


def write_site(directory: Path) -> None:
    """Write the configuration and the folder ``pages``, which is emptied, into a directory."""
    where = directory / "pages"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    shutil.copy(DOCS / "site.toml", directory / "zensical.toml")
    for file in (*DOCS.glob("*.svg"), DOCS / "site.css"):
        shutil.copy(file, where)
    shutil.copytree(DOCS / "pictures", where / "pictures")
    for name, text in pages().items():
        (where / name).write_text(text)


if __name__ == "__main__":
    write_site(Path(sys.argv[1]))
