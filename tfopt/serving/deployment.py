"""Files that start TF Serving on a serving folder: a command line, docker-compose, Kubernetes with autoscaling."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from tfopt.serving.server_flags import GRPC_PORT, MONITORING_FILE, REST_PORT, SERVER, server_flags

__all__ = ["COMMAND_FILE", "COMPOSE_FILE", "KUBERNETES_FILE", "METRICS_PATH", "deployment_files"]

COMMAND_FILE = "tensorflow_model_server.sh"
COMPOSE_FILE = "docker-compose.yaml"
KUBERNETES_FILE = "kubernetes.yaml"
METRICS_PATH = "/monitoring/prometheus/metrics"
IMAGE = "tensorflow/serving:2.21.0"
APPLICATION = "tensorflow-serving"
CLAIM = "tensorflow-serving-models"
MINIMUM_REPLICAS, MAXIMUM_REPLICAS = 2, 10
CPU_TARGET_PERCENT = 70
DRAIN_SECONDS = 10
"""A pod goes on answering this long while the cluster takes it off its lists; the server itself does not drain."""


def deployment_files(base_path: str, *, model: str, cpus: int) -> dict[str, str]:
    """The content of the files, by name.

    The server listens for REST once every model is loaded and warmed up, so that a probe of one model's status
    tells when a replica is ready.

    Args:
        base_path: the serving folder as the server sees it, a path or a URI.
        model: the name of the model whose status is asked for.
        cpus: CPU cores that one replica asks of the cluster, which the autoscaling counts by.

    Example:
        >>> print(deployment_files("/models", model="digits", cpus=4)["monitoring.config"])
        prometheus_config {
          enable: true
          path: "/monitoring/prometheus/metrics"
        }
        <BLANKLINE>

    References: tensorflow.org/tfx/serving/docker and serving_config; docs.docker.com/reference/compose-file;
    kubernetes.io/docs/reference/kubernetes-api (Deployment apps/v1, Service v1, HorizontalPodAutoscaler
    autoscaling/v2).
    """
    flags = server_flags(base_path)
    return {
        MONITORING_FILE: f'prometheus_config {{\n  enable: true\n  path: "{METRICS_PATH}"\n}}\n',
        COMMAND_FILE: _command_text(flags, base_path),
        COMPOSE_FILE: _compose_text(flags, base_path, model),
        KUBERNETES_FILE: _kubernetes_text(flags, base_path, model, cpus),
    }


def _command_text(flags: list[str], base_path: str) -> str:
    lines = " \\\n    ".join([f"exec {SERVER}", *map(shlex.quote, flags), '"$@"'])
    return (
        f"#!/bin/sh\n# Starts TF Serving where it sees this folder as {base_path}; further flags may follow.\n{lines}\n"
    )


def _compose_text(flags: list[str], base_path: str, model: str) -> str:
    ask = f"GET {_status_path(model)} HTTP/1.0\\r\\n\\r\\n"
    # The image has neither curl nor wget.
    probe = f"exec 3<>/dev/tcp/127.0.0.1/{REST_PORT} && printf '{ask}' >&3 && grep -q '\"AVAILABLE\"' <&3"
    service: dict[str, Any] = {
        "image": IMAGE,
        "entrypoint": [SERVER],
        "command": [flag.replace("$", "$$") for flag in flags],
        "init": True,
        "restart": "unless-stopped",
        "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
        "healthcheck": {
            "test": ["CMD", "bash", "-c", probe],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "300s",
        },
    }
    if _is_path(base_path):
        service["volumes"] = [{"type": "bind", "source": ".", "target": base_path, "read_only": True}]
    return _yaml(
        [{"services": {APPLICATION: service}}],
        "docker compose up, in this folder. The ports are open to this machine only: TF Serving asks nobody who he is.",
    )


def _kubernetes_text(flags: list[str], base_path: str, model: str, cpus: int) -> str:
    labels = {"app.kubernetes.io/name": APPLICATION}
    ports = {"grpc": GRPC_PORT, "rest": REST_PORT}
    status = {"httpGet": {"path": _status_path(model), "port": "rest"}}
    container: dict[str, Any] = {
        "name": APPLICATION,
        "image": IMAGE,
        "command": [SERVER],
        "args": [flag.replace("$(", "$$(") for flag in flags],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": {"requests": {"cpu": str(cpus)}},
        "startupProbe": {**status, "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**status, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
    }
    pod: dict[str, Any] = {"terminationGracePeriodSeconds": DRAIN_SECONDS + 20, "containers": [container]}
    if _is_path(base_path):
        container["volumeMounts"] = [{"name": "models", "mountPath": base_path, "readOnly": True}]
        pod["volumes"] = [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}]
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(REST_PORT), "prometheus.io/path": METRICS_PATH}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": APPLICATION, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": scraped}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": APPLICATION, "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [{"name": name, "port": port, "targetPort": name} for name, port in ports.items()],
        },
    }
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_TARGET_PERCENT}}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": APPLICATION, "labels": labels},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APPLICATION},
            "minReplicas": MINIMUM_REPLICAS,
            "maxReplicas": MAXIMUM_REPLICAS,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }
    volume = f"This folder is the volume of the claim {CLAIM}. " if _is_path(base_path) else ""
    return _yaml(
        [deployment, service, autoscaler],
        f"kubectl apply -f {KUBERNETES_FILE}\n{volume}Set resources.requests to what a replica\n"
        "needs: the autoscaler counts by them.",
    )


def _status_path(model: str) -> str:
    return f"/v1/models/{model}"


def _is_path(base_path: str) -> bool:
    return base_path.startswith("/")


def _yaml(documents: list[dict[str, Any]], comment: str) -> str:
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.dump_all(documents, Dumper=_PlainDumper, sort_keys=False, width=1000)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # what reads the file may not know them
        return True
