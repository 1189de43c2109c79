"""Every notebook runs from top to bottom, is numbered, linked, and stored without outputs."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@every_notebook
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.source.strip()
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@every_notebook
def test_notebooks_say_what_comes_of_them_hold_it_and_go_on(path: Path) -> None:
    first, *_, last = sources(path, "markdown")
    assert re.match(r"# .+\n\nAt the end you will have ", first)
    assert last.startswith("## Where to go on") or "\n## Where to go on\n" in last
    code = "\n".join(line for cell in sources(path, "code") for line in cell.splitlines() if not line.startswith("%"))
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))


@every_notebook
def test_links_of_notebooks_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(sources(path, "markdown")))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_notebooks_are_numbered_and_in_the_readme() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}_" for number in range(1, len(NOTEBOOKS) + 1)]
    assert NOTEBOOKS[0].name == "01_quickstart.ipynb"
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"(notebooks/{path.name})" not in readme] == []


@pytest.mark.slow
@every_notebook
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    # A cell that fails raises here, with its traceback.
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
