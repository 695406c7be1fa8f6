"""The documentation site has every page once, its links lead somewhere, and its blocks are run or say why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from .python_reference import MODULES, docstring
from .site import DOCS, configuration, navigation, pages, write_site

SITE: Final = pages()
_IN_BLOCKS: Final = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(navigation(configuration()["project"]["nav"])) == sorted(SITE)


@pytest.mark.parametrize("name", SITE)
def test_links_of_the_site_lead_to_its_pages(name: str) -> None:
    for target in re.findall(r"(?<!!)\]\(([^)\s]+)\)", _IN_BLOCKS.sub("", SITE[name])):
        path = target.partition("#")[0]
        assert not path or path in SITE or ":" in path or (DOCS / path).is_file(), target


def test_the_sources_of_the_site_are_written(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/old.md").touch()
    write_site(tmp_path)
    written = {file.name for file in (tmp_path / "pages").iterdir()}
    assert written >= {*SITE, "site.css"}
    assert "old.md" not in written
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", "".join(SITE.values())):
        assert (tmp_path / "pages" / name).is_file()


@pytest.mark.parametrize("picture", sorted(DOCS.glob("pictures/*.svg")), ids=lambda path: path.stem)
def test_a_picture_names_no_other_host_and_no_place_of_this_one(picture: Path) -> None:
    text = picture.read_text()
    ElementTree.fromstring(text)
    assert set(re.findall(r"https?://[^\s\"]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"/(tmp|root|home|work)/|@import|<image|<script", text)
    assert f'"{picture.stem}": (' in Path(__file__).with_name("pictures.py").read_text()


def test_the_reference_has_every_public_name() -> None:
    text = SITE["python-api.md"]
    for module in MODULES:
        assert f"\n## fastn_p2p_client{module}\n" in text
    for name in ("### call\n", "### Client\n", "#### Client.call\n", "### Denied\n", "**Raises**\n"):
        assert name in text


def test_sections_of_a_docstring_become_lists() -> None:
    def function() -> None:
        """Do it with ``care``.

        ::

            do(it)

        Args:
            a, b: what
                is done.

        Raises:
            P2PError: it failed.
        """

    made = docstring(function)
    assert made.startswith("Do it with `care`.\n")
    assert "do(it)\n```\n" in made
    assert "**Args**\n\n- `a`, `b`: what\n  is done.\n" in made
    assert made.endswith("**Raises**\n\n- `P2PError`: it failed.")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    """Blocks with ``run``, ``typed`` and ``stays`` are run by ``tests/e2e/operations``."""
    blocks = re.findall(r"^(?:<!-- (.*) -->\n)?```(?:sh|console|python)\n(.*)", page.read_text(), re.MULTILINE)
    unmarked = [
        first for marker, first in blocks if not re.match(r"(run|typed|stays|not run|example|output): \S", marker)
    ]
    assert unmarked == []


def test_tests_that_the_pages_name_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "coming-from.md").read_text())
    assert len(named) > 10
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (DOCS.parent / path).read_text(), re.MULTILINE), name
