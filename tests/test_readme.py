"""What a newcomer reads is true: the examples of the README and of docs/ run, its commands and links exist."""

import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import typer

from tfopt.cli import app
from tfopt.demo import load_data

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, *(ROOT / "docs").glob("*.md")])
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*/*.md"))]
INSTALL_AND_DEMO = "pip install -e . && tfopt demo"
INSTALL_AND_TEST = "pip install -e '.[dev]' && pytest"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(*pages: Path) -> list[list[str]]:
    lines = [line for page in pages for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("tfopt ")]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model that the pages under docs/ begin with."""
    data = load_data("digits")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, epochs=5, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_examples_run(page: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page reads from top to bottom, in one namespace that holds what its text says it needs."""
    monkeypatch.chdir(tmp_path)
    data = load_data("digits")
    namespace = {key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    if page != README:
        namespace["model"] = keras.models.load_model(model_file)
    for number, source in enumerate(blocks(page, "python")):
        exec(compile(source, f"{name(page)}, example {number + 1}", "exec"), namespace)
    if page == README:
        report = namespace["report"]
        assert namespace["int8"].verification["full_integer"]
        assert [entry.score > 0.9 for entry in report.entries] == [True, True]
        kernels = [layer.kernel for layer in namespace["model"].layers if hasattr(layer, "kernel")]
        assert all(round(float(np.mean(np.asarray(kernel) == 0)), 2) == 0.8 for kernel in kernels)
        assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_are_python(page: Path) -> None:
    for source in blocks(page, "python"):
        compile(source, name(page), "exec")


def test_the_two_commands_are_there() -> None:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    assert INSTALL_AND_DEMO in lines
    assert INSTALL_AND_TEST in lines


def test_every_command_of_the_command_line_is_shown() -> None:
    assert {command for _, command, *_ in commands(README)} == set(typer.main.get_group(app).commands)


@pytest.mark.parametrize("words", commands(*PAGES), ids=" ".join)
def test_shown_options_exist(words: list[str]) -> None:
    command = typer.main.get_group(app).commands[words[1]]
    # Parsing checks names and types; nothing is run.
    context = command.make_context(words[1], words[2:])
    assert not context.args


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{name(page)} links to {target}; headings: {anchors}"


def test_every_page_of_the_docs_is_linked() -> None:
    linked = "".join(page.read_text() for page in (README, ROOT / "docs" / "architecture.md"))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "adr").glob("*.md")]
    assert [page.name for page in pages if page.name not in linked] == []


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = [path for path in (ROOT / "tfopt").rglob("*.py") if not path.stem.startswith("__")]
    modules += [path for path in (ROOT / "callbacks").glob("*.py") if not path.stem.startswith("__")]
    missing = [path.stem for path in modules if not re.search(rf"`[\w.]*\b{path.stem}`", text)]
    assert missing == []


def test_results_have_their_place() -> None:
    text = README.read_text()
    assert re.search(r"<!-- begin: real_models -->\n.+\n<!-- end: real_models -->", text, re.DOTALL)
