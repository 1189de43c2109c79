import pytest

from tfopt.errors import ConfigError
from tfopt.resource_target import parse_resource_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flops: 50%", ("flops", 0.5)), (" params:12.5 % ", ("params", 0.125)), ("flops: 100%", ("flops", 1.0))],
)
def test_targets(text, expected):
    assert parse_resource_target("name", text, ("flops", "params")) == expected


@pytest.mark.parametrize("text", ["50%", "flops: 0%", "flops: 120%", "flops: 0.5", "latency: 50%", "", None, 0.5])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ConfigError, match="name: target must tell what remains, as 'flops: 50%' or 'params: 50%'"):
        parse_resource_target("name", text, ("flops", "params"))
