"""What is shipped, and what an import costs."""

import ast
import configparser
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfopt

ROOT = Path(__file__).parents[1]
EXTRAS = ("edge", "onnx", "serving")
"""Those for users; the others are for who works on tfopt."""


def package_map() -> tuple[dict[str, str], set[str]]:
    """The folders and the packages of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    options = parser["options"]
    lines = options["package_dir"].split("\n")
    folders = dict(re.split(r"\s*=\s*", line.strip()) for line in lines if line.strip())
    return folders, set(options["packages"].split())


def source_files() -> list[Path]:
    return sorted(path for folder in ("tfopt", "callbacks") for path in (ROOT / folder).rglob("*.py"))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_setup_cfg_lists_every_package() -> None:
    folders, packages = package_map()
    on_disk = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for package, folder in folders.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert packages == on_disk
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert set(parser.sections()) == {"options", "options.package_data"}  # a map and nothing else


def test_callbacks_are_linked_where_they_are_installed() -> None:
    assert (ROOT / "tfopt" / "callbacks").is_symlink()
    assert (ROOT / "tfopt" / "callbacks").resolve() == ROOT / "callbacks"


def test_every_folder_with_code_is_a_package() -> None:
    assert [path for path in source_files() if not (path.parent / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, the wheel that is made of it, and the wheel of the sources."""
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml needs setuptools 77 to build")
    folder = tmp_path_factory.mktemp("packages")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("tfopt", "callbacks"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, out in (("--wheel", "of_sources"), (None, "of_sdist")):  # build makes the second wheel of the sdist
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / out), str(source)]
        command += [kind] if kind else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(source / "build", ignore_errors=True)
    return {
        "sdist": next((folder / "of_sdist").glob("*.tar.gz")),
        "wheel of sdist": next((folder / "of_sdist").glob("*.whl")),
        "wheel": next((folder / "of_sources").glob("*.whl")),
    }


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed(packages: dict[str, Path]) -> None:
    archive = zipfile.ZipFile(packages["wheel"])
    names = archive.namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    folders, _ = package_map()
    expected = {
        str(Path(package.replace(".", "/"), path.relative_to(ROOT / folder)))
        for package, folder in folders.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name for name in shipped if name.endswith(".py")} == expected
    assert shipped - expected == {"tfopt/py.typed", "tfopt/benchmark/report.html.jinja"}
    assert "tfopt/callbacks/magnitude_pruning.py" in shipped
    assert not any(name.startswith("callbacks/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "tfopt = tfopt.cli:main" in archive.read(entry_points).decode()


@pytest.mark.slow
def test_the_wheel_of_the_sdist_is_the_same(packages: dict[str, Path]) -> None:
    wheels = [zipfile.ZipFile(packages[name]) for name in ("wheel", "wheel of sdist")]
    contents = [{name: wheel.read(name) for name in wheel.namelist()} for wheel in wheels]
    assert contents[0].keys() == contents[1].keys()
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == []


@pytest.mark.slow
def test_the_sdist_holds_what_a_wheel_is_made_of_and_no_more(packages: dict[str, Path]) -> None:
    with tarfile.open(packages["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "setup.cfg", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert "callbacks/magnitude_pruning.py" in names
    assert [name for name in names if name.startswith(("tests", "docs", "benchmarks", "notebooks"))] == []


@pytest.mark.slow
def test_the_metadata_keep_to_the_standard(packages: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(packages["wheel"])
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Metadata.from_email(wheel.read(name), validate=True)  # raises for each field that is not as it should be
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(metadata.version) == project["version"] == tfopt.__version__
    assert metadata.summary == project["description"]
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text()
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE"]
    assert "Typing :: Typed" in metadata.classifiers
    required = {one.name for one in metadata.requires_dist if one.marker is None}
    assert required == {Requirement(one).name for one in project["dependencies"]}


@pytest.mark.slow
def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for name, extra in project["optional-dependencies"].items() if name in EXTRAS for one in extra]
    declared = {canonicalize_name(Requirement(one).name) for one in [*project["dependencies"], *extras]}
    imported = set()
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    libraries = imported - sys.stdlib_module_names - {"tfopt"}
    assert len(libraries) > 10
    distributions = packages_distributions()
    undeclared = {
        name: distributions.get(name, ["not installed"])
        for name in libraries
        if not declared & {canonicalize_name(one) for one in distributions.get(name, [])}
    }
    assert undeclared == {}


def test_the_public_names_are_those_that_resolve() -> None:
    assert tfopt.__all__ == sorted(tfopt.__all__, key=lambda name: (name[0].islower(), name))
    for name in tfopt.__all__:
        assert getattr(tfopt, name) is not None
        assert name in dir(tfopt)
    defined = {
        name
        for name, value in vars(tfopt).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("tfopt")
    }
    assert defined <= set(tfopt.__all__)
    with pytest.raises(AttributeError, match="module 'tfopt' has no attribute 'quantise'"):
        _ = tfopt.quantise


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((ROOT / "tfopt" / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfopt")
        for alias in node.names
    }
    assert {name for name in imported if not name.startswith("_")} == set(tfopt.__all__)
    assert (ROOT / "tfopt" / "py.typed").exists()


def test_modules_have_what_they_promise() -> None:
    for path in source_files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__main__" or parts[0] == "callbacks":  # those are imported under their installed name
            continue
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        assert module.__doc__, path
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == [], path


@pytest.mark.parametrize(
    "imports",
    [
        "import tfopt",
        "import tfopt.benchmark.report, tfopt.optimize, tfopt",
        "import tfopt.early_exit.policy, tfopt",
        "from tfopt.optimize import Result; from tfopt.benchmark.units import *; import tfopt",
    ],
)
def test_verbs_stay_functions_whatever_is_imported(imports: str) -> None:
    verbs = "tfopt.benchmark, tfopt.optimize, tfopt.early_exit"
    assert run(f"{imports}; print([callable(verb) for verb in ({verbs})])") == "[True, True, True]\n"


HEAVY = "sorted({'tensorflow', 'keras', 'sklearn', 'matplotlib', 'ai_edge_litert', 'tf_keras'} & set(sys.modules))"


def test_importing_loads_no_tensorflow() -> None:
    assert run(f"import sys, tfopt, tfopt.errors, tfopt.recipe, tfopt.artifact, tfopt.data; print({HEAVY})") == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["optimize", "--help"], ["benchmark", "--help"], ["serve", "--help"]]
)
def test_help_loads_no_tensorflow(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['tfopt', *{arguments}]\n"
        "from tfopt.cli import main\n"
        "try: main()\n"
        f"except SystemExit as end: print(end.code, {HEAVY})\n"
    )
    assert run(code).endswith("\n0 []\n")


@pytest.mark.slow
def test_importing_leaves_the_environment_alone() -> None:
    assert (
        run(
            "import os; before = dict(os.environ); import tfopt; tfopt.export_tflite; print(before == dict(os.environ))"
        )
        == "True\n"
    )


@pytest.mark.slow
def test_only_public_interfaces_are_imported() -> None:
    private = []
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            private += [f"{path}: {name}" for name in names if re.search(r"^keras\.src|^tensorflow\.python|\._", name)]
    assert private == []


def test_the_extras_that_messages_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "".join(path.read_text() for path in source_files())
    named = set(re.findall(r"""MissingExtraError\([^)]*extra=["'](\w+)["']""", text))
    assert named
    assert named <= project["optional-dependencies"].keys()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vela = importlib.import_module("tfopt.vela")

    def absent(name: str) -> str:
        raise vela.PackageNotFoundError(name)

    monkeypatch.setattr(vela, "version", absent)
    with pytest.raises(tfopt.errors.MissingExtraError, match=r"needs the extra 'edge'.*pip install 'tfopt\[edge\]'"):
        vela.accelerator_of("ethos-u55-128", argument="target")
