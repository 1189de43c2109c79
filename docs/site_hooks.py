"""What mkdocs leaves out: drawings that GitHub makes, and a site only with a script from another host."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_markdown"]


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Leaves a page's Mermaid blocks out; each has its text beside it."""
    return re.sub(r"^```mermaid\n.*?^```\n", "", markdown, flags=re.DOTALL | re.MULTILINE)
