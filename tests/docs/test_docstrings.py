"""Docstrings begin with the term or a verb, and sentences of the main pages name their subject."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from .tables import CODE, ROOT

FOLDERS = (*CODE, "tests", "examples")
RIDDLE = re.compile(r"(?:What|Who|Whoever|Whatever|Whether|Those|That|Of|Its)\b|One\b(?!-)")
"""Beginning that says what a thing is not called. ``One-shot`` is a term."""
SUBJECTS = re.compile(r"(?:What|Who|Whoever|Whatever|Whether)\b(?!.*\?$)")
"""Beginning of a sentence without an actor. A question may have it."""
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("architecture", "networking", "operations", "protocol")),
)


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, also those of constants and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                value = statement.value if isinstance(statement, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield statement.lineno, value.value.strip()


def sentences(text: str) -> list[str]:
    """Return the sentences of the paragraphs and table cells of a page, without code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`", "X", text).replace("**", "")
    parts = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) |\||(?<=[.!?])\s", text, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in parts if part.strip()]


def test_docstrings_begin_with_the_term_or_a_verb() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for line, text in docstrings(ast.parse(path.read_text()))
        if RIDDLE.match(text)
    ]
    assert found == []


@pytest.mark.parametrize("page", PAGES)
def test_sentences_name_their_subject(page: str) -> None:
    assert [each for each in sentences((ROOT / page).read_text()) if SUBJECTS.match(each)] == []


@pytest.mark.parametrize("text", ["What it does.", "Whoever asks.", "Of each one.", "One of them."])
def test_riddles_are_found(text: str) -> None:
    assert RIDDLE.match(text)


def test_terms_are_no_riddles() -> None:
    assert not any(map(RIDDLE.match, ("One-shot worker.", "Whole mail.", "Official list.", "Thatched roof.")))
    assert sentences("Who asks? `x`\n- What\n  is it.\n| a | Who is it |\n```\nWhat\n```\n") == [
        "Who asks?",
        "X",
        "What is it.",
        "a",
        "Who is it",
    ]
