from pathlib import Path

import pytest

import tfopt
from tfopt.benchmark.candidates import Candidate, candidates, with_xnnpack
from tfopt.errors import ConfigError

FILES = [
    Candidate("int8", Path("int8.tflite"), "tflite", None),
    Candidate("serving", Path("serving/1"), "saved_model", None),
    Candidate("onnx", Path("int8.onnx"), "onnx", None),
]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("on", [("int8", True), ("serving", True), ("onnx", True)]),
        ("off", [("int8", False), ("serving", True), ("onnx", True)]),
        ("both", [("int8", True), ("int8, without XNNPACK", False), ("serving", True), ("onnx", True)]),
    ],
)
def test_xnnpack_is_a_choice_for_each_tflite(choice, expected):
    assert [(one.name, one.xnnpack) for one in with_xnnpack(FILES, choice)] == expected


@pytest.mark.parametrize("choice", ["yes", True])
def test_another_choice_is_refused(choice):
    with pytest.raises(ConfigError, match=rf"xnnpack must be one of on, off, both\. Received: {choice!r}"):
        with_xnnpack(FILES, choice)


def test_the_kind_of_a_file_is_that_of_its_suffix(tmp_path):
    for name in ("a.tflite", "b.onnx"):
        (tmp_path / name).write_bytes(b"content")
    assert [(one.name, one.kind, one.files) for one in candidates([tmp_path / "a.tflite", tmp_path / "b.onnx"])] == [
        ("a", "tflite", [tmp_path / "a.tflite"]),
        ("b", "onnx", [tmp_path / "b.onnx"]),
    ]
    (tmp_path / "model.keras").write_bytes(b"content")
    with pytest.raises(
        ConfigError, match=r"expected a \.tflite or \.onnx file or a SavedModel folder\. Received: .*keras"
    ):
        tfopt.benchmark(tmp_path / "model.keras")
