"""Files with metadata: what readers find in them, and that nothing else has changed."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import tfopt
from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError
from tfopt.export.task_metadata import ModelMetadata, describe
from tfopt.export.task_metadata_file import add_metadata, metadata_remarks, read_metadata
from tfopt.export.task_metadata_schema import TensorDescription, unpack_description
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

METADATA = ModelMetadata(
    labels={"scores": ("cat", "dog", "eel", "fox", "gnu", "hen"), "box": ("x", "y", "w", "h")},
    mean=127.5,
    standard_deviation=(127.5, 128, 64),
    name="pets",
    author="somebody",
)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.float32)


def detector() -> keras.Model:
    """The converter orders inputs and outputs by the alphabet; here they are in another order."""
    keras.utils.set_random_seed(0)
    image, bias = keras.Input((8, 8, 3), name="image"), keras.Input((8,), name="bias")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(layers.Rescaling(1 / 255)(image))
    x = layers.Add()([layers.GlobalAveragePooling2D()(x), bias])
    outputs = {"scores": layers.Dense(6, "softmax")(x), "height": layers.Dense(1)(x), "box": layers.Dense(4)(x)}
    return keras.Model({"image": image, "bias": bias}, outputs)


def classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(layers.Rescaling(1 / 255)(image)))
    return keras.Model(image, layers.Dense(2, "softmax", name="scores")(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plain.tflite, with.tflite and again.tflite: a file without metadata, and two with the same."""
    folder = tmp_path_factory.mktemp("metadata")
    model = detector()
    export_tflite(model, folder / "plain.tflite", "none")
    for name in ("with", "again"):
        with pytest.warns(UserWarning, match="MediaPipe takes one mean"):
            export_tflite(model, folder / f"{name}.tflite", "none", metadata=METADATA)
    return folder


@pytest.mark.slow
def test_tensors_are_described_in_the_order_of_the_graph(folder: Path) -> None:
    found = read_metadata(folder / "with.tflite")
    assert found is not None
    description, files = found
    assert description.texts == {"name": "pets", "author": "somebody"}
    interpreter = Interpreter(str(folder / "with.tflite"))
    signature = interpreter.get_signature_runner("serving_default")
    inputs, outputs = (
        {detail["index"]: name for name, detail in details.items()}
        for details in (signature.get_input_details(), signature.get_output_details())
    )
    assert [one.name for one in description.inputs] == [inputs[x["index"]] for x in interpreter.get_input_details()]
    assert [one.name for one in description.outputs] == [outputs[x["index"]] for x in interpreter.get_output_details()]
    by_name = {one.name: one for one in (*description.inputs, *description.outputs)}
    assert by_name == {
        "image": TensorDescription("image", 3, (127.5,), (127.5, 128.0, 64.0)),
        "bias": TensorDescription("bias"),
        "scores": TensorDescription("scores", label_file="scores_labels.txt"),
        "height": TensorDescription("height"),
        "box": TensorDescription("box", label_file="box_labels.txt"),
    }
    assert files == {"scores_labels.txt": b"cat\ndog\neel\nfox\ngnu\nhen", "box_labels.txt": b"x\ny\nw\nh"}


def test_readers_of_zip_files_and_flatbuffers_find_both(folder: Path) -> None:
    content = (folder / "with.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            # The task libraries take no compressed files.
            assert (entry.compress_type, entry.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
            assert content[entry.header_offset : entry.header_offset + 4] == b"PK\3\4"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (note,) = (one for one in model.metadata if one.name == b"TFLITE_METADATA")
    packed = bytes(model.buffers[note.buffer].data)
    assert unpack_description(packed).texts == {"name": "pets", "author": "somebody"}
    start = content.index(packed)
    assert (packed[4:8], start % 16) == (b"M001", 0)
    assert struct.unpack_from("<I", packed)[0] < len(packed)


def test_nothing_else_changes(folder: Path) -> None:
    plain, described = (Artifact.load(folder / f"{name}.tflite") for name in ("plain", "with"))
    assert read_tflite(described.path) == read_tflite(plain.path)
    assert described.layers == plain.layers
    assert described.verification == plain.verification
    assert (described.inputs, described.outputs) == (plain.inputs, plain.outputs)
    assert set(_notes(plain.path)) == set(_notes(described.path)) - {b"TFLITE_METADATA"}
    assert 0 < described.size_bytes - plain.size_bytes < 2500


def _notes(path: Path) -> dict[bytes, bytes]:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    return {note.name: bytes(model.buffers[note.buffer].data) for note in model.metadata}


def test_the_same_metadata_gives_the_same_bytes(folder: Path) -> None:
    shapes = ({"image": (1, 8, 8, 3), "bias": (1, 8)}, {"scores": (1, 6), "height": (1, 1), "box": (1, 4)})
    described = describe(METADATA, *shapes)
    with_metadata = [add_metadata((folder / "plain.tflite").read_bytes(), *described) for _ in range(2)]
    assert with_metadata[0] == with_metadata[1]
    assert (folder / "with.tflite").read_bytes() == (folder / "again.tflite").read_bytes()


def test_inspect_tells_it(folder: Path) -> None:
    remarks = metadata_remarks(folder / "with.tflite")
    assert set(remarks) == {
        "metadata: name 'pets', author 'somebody'",
        "normalization of image: (pixel - 127.5) / (127.5, 128, 64)",
        "6 labels of scores: cat, dog, eel, fox, gnu, …",
        "4 labels of box: x, y, w, h",
    }
    assert set(remarks) <= set(tfopt.inspect(folder / "with.tflite").remarks)
    assert metadata_remarks(folder / "plain.tflite") == ()
    assert read_metadata(folder / "plain.tflite") is None


def test_labels_that_were_cut_off_are_told(folder: Path, tmp_path: Path) -> None:
    content = (folder / "with.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: content.index(b"PK\3\4")])
    assert "labels of scores: scores_labels.txt, which the file does not hold" in metadata_remarks(path)


def test_damaged_metadata_is_refused(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "with.tflite").read_bytes())
    content[content.index(b"M001")] = 0
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    with pytest.raises(DataError, match="lacks the mark 'M001'"):
        tfopt.inspect(path)


def without_files(path: Path) -> bytes:
    """The flatbuffer alone."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return content[: min(entry.header_offset for entry in archive.infolist())]


@pytest.mark.parametrize("repeated", [False, True])
def test_label_files_that_unpack_to_too_much_are_not_unpacked(folder: Path, tmp_path: Path, repeated: bool) -> None:
    path = tmp_path / "bomb.tflite"
    path.write_bytes(without_files(folder / "with.tflite"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(5 if repeated else 1):
            with archive.open(f"labels_{number}.txt", "w") as file:
                file.write(bytes((1 << 26) // (5 if repeated else 1) + 1))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    with pytest.raises(DataError, match=r"at most 67,108,864 bytes behind .*Received: files that unpack to 67,108,\d+"):
        tfopt.inspect(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_label_file_that_lies_about_its_size_is_unpacked_no_further(folder: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", bytes(1 << 24))
    content = bytearray(file.getvalue())
    for place in (22, content.index(b"PK\1\2") + 24):  # the local header, and the directory
        assert struct.unpack_from("<I", content, place) == (1 << 24,)
        struct.pack_into("<I", content, place, 100)
    path = tmp_path / "liar.tflite"
    path.write_bytes(without_files(folder / "with.tflite") + content)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"the files behind its metadata cannot be read \(Bad CRC"):
        read_metadata(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_label_files_packed_otherwise_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "packed.tflite"
    path.write_bytes(without_files(folder / "with.tflite"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("labels.txt", "ant\nbee")
    with pytest.raises(DataError, match="stored or packed by deflate"):
        read_metadata(path)


def test_a_vector_that_reaches_beyond_the_metadata_is_refused(folder: Path) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((folder / "with.tflite").read_bytes()))
    (note,) = (one for one in model.metadata if one.name == b"TFLITE_METADATA")
    packed = bytes(model.buffers[note.buffer].data)
    one, many = struct.pack("<I", 1), struct.pack("<I", 2**31)
    places = [place for place in range(0, len(packed) - 3, 4) if packed[place : place + 4] == one]
    told = []
    for place in places:
        try:
            unpack_description(packed[:place] + many + packed[place + 4 :])
        except DataError as error:
            told.append(str(error))
    assert any("a vector of 2147483648 elements reaches beyond the end" in one for one in told)


def test_metadata_without_its_buffer_is_refused(folder: Path, tmp_path: Path) -> None:
    model = unpack_tflite((folder / "with.tflite").read_bytes())
    next(one for one in model.metadata if one.name == b"TFLITE_METADATA").buffer = 9999
    path = tmp_path / "without.tflite"
    path.write_bytes(pack_tflite(model))
    with pytest.raises(DataError, match="there is no buffer 9999"):
        tfopt.inspect(path)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8_float_io", "weight_only_int8"])
def test_quantized_files_are_described_before_they_are_audited(tmp_path: Path, quantization: str) -> None:
    metadata = ModelMetadata(labels=["cat", "dog"], mean=0, standard_deviation=1)
    artifact = export_tflite(
        classifier(), tmp_path / "model.tflite", quantization, calibration=IMAGES, metadata=metadata
    )
    assert artifact.verification["samples"] == 16
    assert Artifact.load(artifact.path).sha256 == artifact.sha256
    assert "2 labels of scores: cat, dog" in metadata_remarks(artifact.path)


@pytest.mark.slow
def test_what_task_libraries_refuse_is_warned_of(tmp_path: Path) -> None:
    metadata = ModelMetadata(labels=["cat", "dog"], mean=0, standard_deviation=1)
    with pytest.warns(UserWarning, match="will refuse the file: both take images as float32 .*int8_float_io"):
        artifact = export_tflite(classifier(), tmp_path / "a.tflite", calibration=IMAGES, metadata=metadata)
    assert artifact.verification["full_integer"]


def test_metadata_that_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'scores' needs a label for each of its 2 values\. Received: 3"):
        export_tflite(classifier(), tmp_path / "a.tflite", "none", metadata=ModelMetadata(labels=["a", "b", "c"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_described_file_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks see the file that is written, not the one before the metadata."""

    def damage(content: bytes, *described: object) -> bytes:
        conv = max((one for one in schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)).buffers), key=_size)
        return content.replace(bytes(conv.data), bytes(len(conv.data)))

    monkeypatch.setattr("tfopt.export.tflite.add_metadata", damage)
    metadata = ModelMetadata(labels=["cat", "dog"], mean=0, standard_deviation=1)
    with pytest.raises(ExportError, match="disagrees with Keras"):
        export_tflite(classifier(), tmp_path / "a.tflite", "none", metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def _size(buffer: schema.BufferT) -> int:
    return 0 if buffer.data is None else len(buffer.data)
