"""Deployment files: what docker-compose and Kubernetes read in them, and the same command line in each."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from tfopt.serving.deployment import deployment_files
from tfopt.serving.proto_text import monitoring_config
from tfopt.serving.server_flags import server_flags


def files(base_path: str = "/models") -> dict[str, str]:
    return deployment_files(base_path, model="digits", cpus=4)


@pytest.mark.parametrize("base_path", ["/models", "/a b/'c' $HOME", "gs://bucket/served"])
def test_all_start_the_server_with_the_same_flags(base_path: str, tmp_path: Path) -> None:
    texts, flags = files(base_path), server_flags(base_path)
    (compose,) = yaml.safe_load(texts["docker-compose.yaml"])["services"].values()
    assert compose["entrypoint"] == ["tensorflow_model_server"]
    assert [flag.replace("$$", "$") for flag in compose["command"]] == flags
    deployment, _, _ = yaml.safe_load_all(texts["kubernetes.yaml"])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["command"], container["args"]) == (["tensorflow_model_server"], flags)
    server = tmp_path / "tensorflow_model_server"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    (tmp_path / "start.sh").write_text(texts["tensorflow_model_server.sh"])
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    told = subprocess.run(
        ["sh", tmp_path / "start.sh", "--grpc_max_threads=2"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert told.stdout.splitlines() == [*flags, "--grpc_max_threads=2"]


def test_a_path_is_mounted_and_a_uri_is_not() -> None:
    (compose,) = yaml.safe_load(files()["docker-compose.yaml"])["services"].values()
    assert compose["volumes"] == [{"type": "bind", "source": ".", "target": "/models", "read_only": True}]
    assert all(port.startswith("127.0.0.1:") for port in compose["ports"])
    pod = next(yaml.safe_load_all(files()["kubernetes.yaml"]))["spec"]["template"]["spec"]
    (mount,), (volume,) = pod["containers"][0]["volumeMounts"], pod["volumes"]
    assert (mount["mountPath"], mount["readOnly"], mount["name"]) == ("/models", True, volume["name"])
    remote = files("gs://bucket/")
    assert "volumes" not in remote["docker-compose.yaml"]
    assert "volume" not in remote["kubernetes.yaml"]


def test_probes_ask_for_the_status_of_the_model() -> None:
    deployment, service, autoscaler = yaml.safe_load_all(files()["kubernetes.yaml"])
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/digits", "port": "rest"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert container["resources"]["requests"]["cpu"] == "4"  # what utilization is a share of
    scaled = autoscaler["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["minReplicas"] < scaled["maxReplicas"]
    assert "replicas" not in deployment["spec"]  # the autoscaler's


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [(b'{"state": "AVAILABLE"}', True), (b'{"state": "LOADING", "error_code": "UNAVAILABLE"}', False)],
)
def test_the_health_check_of_the_container_reads_the_status(tmp_path: Path, answer: bytes, healthy: bool) -> None:
    (compose,) = yaml.safe_load(files()["docker-compose.yaml"])["services"].values()
    command, shell, option, script = compose["healthcheck"]["test"]
    assert (command, shell, option) == ("CMD", "bash", "-c")
    place = "3<>/dev/tcp/127.0.0.1/8501"
    assert place in script
    (tmp_path / "answer").write_bytes(answer)
    # The answer comes from a file: the request is written behind it.
    reading = script.replace(place, f"3<>{shlex.quote(str(tmp_path / 'answer'))}").replace(">&3", ">>request")
    ended = subprocess.run(["bash", "-c", reading], cwd=tmp_path, check=False)
    assert (ended.returncode == 0) == healthy
    assert (tmp_path / "request").read_bytes() == b"GET /v1/models/digits HTTP/1.0\r\n\r\n"


def test_metrics_are_told_where_prometheus_is_sent() -> None:
    config = text_format.Parse(files()["monitoring.config"], monitoring_config())
    deployment = next(yaml.safe_load_all(files()["kubernetes.yaml"]))
    scraped = deployment["spec"]["template"]["metadata"]["annotations"]
    assert config.prometheus_config.enable
    assert scraped["prometheus.io/path"] == config.prometheus_config.path
