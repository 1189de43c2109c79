"""What SECURITY.md claims of files that others made: no code in them runs, and they read and write nothing else."""

import ast
import contextlib
import inspect
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tfopt
from tfopt.compression.checkpoint import load_coded, save_coded
from tfopt.errors import DataError, ModelError
from tfopt.export.onnx_file import read_onnx
from tfopt.model_file import load_model

ROOT = Path(__file__).parents[1]
SECRET = "sha256 of the secret"


def dense_model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])


def edited(path: Path, **members: object) -> Path:
    """The archive with some members replaced, added, or, for a function, changed."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        contents[name] = content(contents[name]) if callable(content) else content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def code_model(tmp_path: Path) -> keras.Model:
    """A model whose file holds code, which writes a file where it is run."""
    x = keras.Input((4,))
    run = eval(f"lambda x: (open({str(tmp_path / 'ran')!r}, 'w').close(), x)[1]")
    model = keras.Model(x, keras.layers.Lambda(run)(x))
    (tmp_path / "ran").unlink(missing_ok=True)
    return model


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.coded"])
def test_code_in_a_model_file_is_not_run(code_model: keras.Model, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".coded":
        save_coded(code_model, path)
    else:
        code_model.save(path)
    readers = [load_coded] if path.suffix == ".coded" else [load_model, tfopt.inspect]
    (tmp_path / "ran").unlink(missing_ok=True)
    for read in readers:
        with pytest.raises(ModelError, match=r"(?i)lambda"):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("module", "function"), [("builtins", "exec"), ("os", "system"), ("tfopt.cli", "main")])
def test_a_function_outside_keras_is_not_called(tmp_path: Path, module: str, function: str) -> None:
    def names_it(config: bytes) -> bytes:
        named = {"module": module, "class_name": "function", "config": function, "registered_name": "function"}
        return config.replace(b'"activation": "linear"', b'"activation": ' + json.dumps(named).encode())

    path = tmp_path / "model.keras"
    dense_model().save(path)
    before = path.read_bytes()
    assert edited(path, **{"config.json": names_it}).read_bytes() != before
    with pytest.raises(ModelError, match="cannot load"):
        load_model(path)


def test_a_vocabulary_outside_the_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(SECRET)
    lookup = keras.layers.StringLookup(vocabulary=["ant", "bee"])
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((1,), dtype="string"), lookup]).save(path)

    def points_outside(config: bytes) -> bytes:
        read = json.loads(config)
        read["config"]["layers"][1]["config"]["vocabulary"] = str(tmp_path / "words.txt")
        return json.dumps(read).encode()

    with pytest.raises(ModelError) as refused:
        load_model(edited(path, **{"config.json": points_outside}))
    assert "outside of the model archive" in str(refused.value.__cause__)


@pytest.mark.parametrize("trick", ["external file", "external link", "soft link", "virtual"])
def test_weights_outside_the_file_are_not_read(tmp_path: Path, trick: str) -> None:
    (tmp_path / "secret").write_bytes(np.ones(12, np.float32).tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((4, 3), np.float32)
    path = tmp_path / "model.keras"
    dense_model().save(path)
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "weights.h5").write_bytes(archive.read("model.weights.h5"))
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        place = "layers/dense/vars/0" if "layers/dense/vars/0" in file else "layers/hidden/vars/0"
        del file[place]
        if trick == "external file":
            file.create_dataset(place, (4, 3), "float32", external=[(str(tmp_path / "secret"), 0, 48)])
        elif trick == "external link":
            file[place] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        elif trick == "soft link":
            file["x"] = np.ones((4, 3), np.float32)
            file[place] = h5py.SoftLink("/x")
        else:
            layout = h5py.VirtualLayout((4, 3), "float32")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", shape=(4, 3))
            file.create_virtual_dataset(place, layout)
    with pytest.raises(ModelError, match="cannot load"):
        load_model(edited(path, **{"model.weights.h5": (tmp_path / "weights.h5").read_bytes()}))


@pytest.mark.parametrize("location", ["../secret", "/secret", "deep/../../secret"])
def test_tensors_outside_the_folder_of_an_onnx_file_are_not_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(np.ones(9, np.float32).tobytes())
    (tmp_path / "models" / "deep").mkdir(parents=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    kernel = numpy_helper.from_array(np.zeros((3, 3), np.float32), "kernel")
    onnx.external_data_helper.set_external_data(kernel, str(tmp_path / "secret") if location == "/secret" else location)
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "kernel"], ["y"])], "graph", [x], [y], [kernel])
    path = tmp_path / "models" / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(DataError, match="damaged"):
        read_onnx(path)


@pytest.mark.parametrize("name", ["../escaped", "{tmp}/escaped", "assets/../../escaped"])
def test_a_member_of_an_archive_is_not_written_elsewhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary is what Keras unpacks to a temporary folder."""
    inner = tmp_path / "inner" / "temporary"
    inner.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(inner))
    lookup = keras.layers.StringLookup()
    lookup.adapt(np.array(["ant", "bee"]))
    path = tmp_path / "inner" / "model.keras"
    keras.Sequential([keras.Input((1,), dtype="string"), lookup]).save(path)
    edited(path, **{name.format(tmp=tmp_path): b"escaped"})
    with contextlib.suppress(ModelError):  # Keras may leave the member out, or refuse the file
        load_model(path)
    assert list(tmp_path.rglob("*escaped*")) == []


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in ("tfopt", "callbacks") for path in (ROOT / folder).glob("**/*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_source_has_no_reader_that_runs_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}
    for name, call in calls(tree):
        assert name not in {"eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
        assert name.rpartition(".")[2] not in {"extractall", "unpack_archive", "enable_unsafe_deserialization"}
        allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert allowed.get("allow_pickle", "False") == "False"
        assert allowed.get("shell", "False") == "False"
    # A Lambda layer of a model in hand is copied with the model; that comes from no file.
    unsafe = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value == "safe_mode"]
    assert not unsafe or path.name == "graph.py"


def test_the_local_server_listens_to_this_machine_only() -> None:
    assert inspect.signature(tfopt.serve).parameters["host"].default == "127.0.0.1"


def test_the_policy_names_tests_that_exist() -> None:
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = {word.strip("`,") for word in policy.split() if word.strip("`,").startswith("tests/")}
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []
