"""Addresses of models."""

import pytest

from tfopt.errors import ConfigError
from tfopt.load.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "protocol", "address", "model", "version", "label", "path"),
    [
        ("http://host/v1/models/m", "rest", "host:8501", "m", None, None, "/v1/models/m"),
        ("http://host:1/v1/models/m:predict", "rest", "host:1", "m", None, None, "/v1/models/m"),
        ("http://host:1/v1/models/m/versions/7/", "rest", "host:1", "m", 7, None, "/v1/models/m/versions/7"),
        ("http://host:1/v1/models/m/labels/new", "rest", "host:1", "m", None, "new", "/v1/models/m/labels/new"),
        ("https://host/behind/v1/models/m", "rest", "host:443", "m", None, None, "/behind/v1/models/m"),
        ("http://[::1]:8/v1/models/a.b-c_d", "rest", "[::1]:8", "a.b-c_d", None, None, "/v1/models/a.b-c_d"),
        ("grpc://host/m", "grpc", "host:8500", "m", None, None, ""),
        ("grpc://host:1/m/versions/2", "grpc", "host:1", "m", 2, None, ""),
        ("grpc://host:1/m/labels/stable", "grpc", "host:1", "m", None, "stable", ""),
    ],
)
def test_an_address_is_read_and_written(
    url: str, protocol: str, address: str, model: str, version: int | None, label: str | None, path: str
) -> None:
    endpoint = Endpoint.of(url, signature="s")
    assert (endpoint.protocol, endpoint.address, endpoint.model) == (protocol, address, model)
    assert (endpoint.version, endpoint.label, endpoint.path, endpoint.signature) == (version, label, path, "s")
    assert Endpoint.of(endpoint.url, signature="s") == endpoint


def test_the_metrics_page_is_where_tf_serving_has_it() -> None:
    page = "http://host:8501/monitoring/prometheus/metrics"
    assert Endpoint.of("http://host/v1/models/m").metrics_url == page
    assert Endpoint.of("grpc://host/m").metrics_url is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8501",
        "http://host:8501",
        "http://host/models/m",
        "ftp://host/v1/models/m",
        "http:///v1/models/m",
        "http://host:99999/v1/models/m",
        "http://host/v1/models/m/versions/new",
        "grpc://host:8500",
        "grpc://host/a/b",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME"):
        Endpoint.of(url)
