"""The server's command line: what TF Serving would ignore or refuse in one."""

import pytest

from tfopt.serving.server_flags import flag_problems, read_flags, server_flags

RIGHT = server_flags("/models")


def test_what_is_written_has_no_problem() -> None:
    assert flag_problems(read_flags(RIGHT)) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--enable_batching=true": ""}, "--batching_parameters_file needs --enable_batching=true"),
        ({"--enable_batching=true": "--enable_batching=false"}, "per_model_batching_parameters has no effect without"),
        (
            {"--enable_batching=true": "--enable_batch=true"},
            r"unknown flag --enable_batch. Did you mean --enable_batching",
        ),
        ({"--rest_api_port=8501": "--rest_api_port=8500"}, "must differ from --port. Received: 8500 for both"),
        ({"--model_config_file=/models/models.config": ""}, "must tell where the models are"),
        ({"--port=8500": "--zzz=1"}, "ignores the unknown flag --zzz."),
    ],
)
def test_problems(changed: dict[str, str], told: str) -> None:
    words = [changed.get(word, word) for word in RIGHT]
    assert any(told in problem for problem in flag_problems(read_flags(words)))


def test_forms_of_a_flag() -> None:
    assert read_flags(["x", "--enable_batching", "--model_name=a=b", "-v", "--port", "--port=1"]) == {
        "enable_batching": "true",
        "model_name": "a=b",
        "port": "1",
    }
    assert flag_problems(read_flags([*RIGHT[:5], "--enable_batching", *RIGHT[6:]])) == []
