"""The documentation as a site: it builds without a warning, shows every public name and no other, and loads nothing."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest
from public_names import ROOT, public_modules, public_names

pytestmark = pytest.mark.slow

GUIDES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def documented(site: Path) -> set[str]:
    """Every name that has a heading on a page of the reference."""
    pages = "".join(page.read_text() for page in (site / "reference").rglob("*.html"))
    return set(re.findall(r'<h\d id="([\w.]+)" class="doc doc-heading"', pages))


class ExternalResources(HTMLParser):
    """Collects what a browser loads from another host when it shows a page; links to click on are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" or ("rel", "canonical") in attrs:
            return
        urls = [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "poster"}]
        self.found += [url for url in urls if re.match(r"(https?:)?//", url)]


def test_every_public_name_is_in_the_reference(documented: set[str]) -> None:
    """Under one of the names that it has, or the one that it was made with."""
    names = public_names()
    shown = {id(value) for name, value in names.items() if name in documented}
    missing = [
        name
        for name, value in names.items()
        if id(value) not in shown
        and f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}" not in documented
    ]
    assert missing == []


def test_nothing_private_is_in_the_reference(documented: set[str]) -> None:
    assert [name for name in documented if re.search(r"\._(?!_)", name)] == []
    shown = {name for name in documented if name.count(".") == 2 and name.rpartition(".")[0] in public_modules()}
    unsaid = [name for name in shown if (parts := name.rpartition("."))[2] not in import_module(parts[0]).__all__]
    assert unsaid == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_what_a_guide_imports_is_in_the_reference(guide: Path, documented: set[str]) -> None:
    text = guide.read_text()
    imported = [
        (module, name.strip())
        for module, names in re.findall(r"^from (tfopt[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
        for name in names.split(",")
    ]
    missing = [
        f"{module}.{name}"
        for module, name in imported
        if not {f"{module}.{name}", f"{(value := getattr(import_module(module), name)).__module__}.{value.__name__}"}
        & documented
    ]
    assert missing == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        resources = ExternalResources()
        resources.feed(page.read_text())
        assert resources.found == [], page
        assert 'class="mermaid"' not in page.read_text(), f"{page}: a script from elsewhere would draw"
    sheets = "".join(sheet.read_text() for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", sheets) == []
