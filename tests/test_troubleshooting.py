"""What docs/troubleshooting.md quotes of tfopt is what tfopt says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
LEAST = 10
"""Letters of a part that is looked for; what is shorter says nothing."""


def quotes() -> list[str]:
    """The blockquotes, each on one line."""
    return [
        re.sub(r"\s*\n> ?", " ", block).removeprefix("> ").strip()
        for block in re.findall(r"(?:^>.*\n)+", PAGE, re.MULTILINE)
    ]


def messages() -> str:
    """The texts of tfopt's source; where a value is put into one, it breaks off."""
    texts = []
    for folder in ("tfopt", "callbacks"):
        for path in (ROOT / folder).rglob("*.py"):
            texts += [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\0".join(texts)


def test_every_quoted_message_is_in_the_source() -> None:
    source, quoted = messages(), quotes()
    assert len(quoted) > 10
    for quote in quoted:
        parts = [part.strip() for part in quote.split("…")]
        spoken = [part for part in parts if len(part) >= LEAST]
        assert spoken, quote
        assert [part for part in spoken if part not in source] == [], quote


@pytest.mark.parametrize("heading", re.findall(r"^### .*$", PAGE, re.MULTILINE))
def test_every_entry_says_what_to_do_with_tfopt(heading: str) -> None:
    entry = PAGE.split(heading, 1)[1].split("\n#", 1)[0]
    assert re.search(r"^> |tfopt|export_\w+|predict|artifact|PreserveCompression", entry, re.MULTILINE)
