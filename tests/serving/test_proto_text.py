"""Text protos: what is wrong in one is told by file, line and column."""

import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.proto_text import batching_parameters, monitoring_config, parse_text


def test_texts_are_read() -> None:
    text = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }'
    monitoring = parse_text(text, monitoring_config(), file="monitoring.config")
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    batching = parse_text("thread_pool_name { value: 'p' } # note", batching_parameters(), file="b.txt")
    assert batching.thread_pool_name.value == "p"


@pytest.mark.parametrize(
    ("text", "message", "told"),
    [
        (
            "max_batch_size { value: 8 }\n max_batchsize { value: 8 }",
            "batching",
            r"^f:2:2: .*Did you mean max_batch_size\?",
        ),
        ("max_batch_size: 8", "batching", r"^f:1:\d+: .*written as `max_batch_size \{ value: 8 \}`"),
        ("max_batch_size { value: eight }", "batching", r"^f:1:25: "),
        ("prometheus_config { enabled: true }", "monitoring", r"^f:1:21: .*Did you mean enable\?"),
        ("model_config_list {\n  config { base_pth: '/m' }\n}", "models", r"^f:2:12: .*Did you mean base_path\?"),
        ("zzz: 1", "batching", r'no field named "zzz"\.$'),
    ],
)
def test_typos_are_told_with_their_place(text: str, message: str, told: str) -> None:
    empty = {"batching": batching_parameters, "monitoring": monitoring_config, "models": ModelServerConfig}[message]()
    with pytest.raises(ConfigError, match=told):
        parse_text(text, empty, file="f")
