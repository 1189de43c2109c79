"""The command line of `tensorflow_model_server`: what starts it on a serving folder, and what is wrong in one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from tfopt.serving.batching import BATCHING_FILE
from tfopt.serving.models_config import MODELS_FILE

__all__ = ["GRPC_PORT", "MONITORING_FILE", "REST_PORT", "SERVER", "flag_problems", "read_flags", "server_flags"]

SERVER = "tensorflow_model_server"
GRPC_PORT, REST_PORT = 8500, 8501
MONITORING_FILE = "monitoring.config"
"""In a serving folder: whether and where the server tells Prometheus its metrics."""
POLL_SECONDS = 60
"""How often the server looks whether models.config has changed; without the flag it reads it once."""

# From main.cc of TF Serving 2.x.
KNOWN_FLAGS = frozenset(
    {
        "allow_version_labels_for_unavailable_models",
        "batching_parameters_file",
        "enable_batching",
        "enable_grpc_healthcheck_service",
        "enable_model_warmup",
        "enable_per_model_batching_parameters",
        "enable_profiler",
        "enable_serialization_as_tensor_content",
        "enable_signature_method_name_check",
        "file_system_poll_wait_seconds",
        "flush_filesystem_caches",
        "grpc_channel_arguments",
        "grpc_max_threads",
        "grpc_socket_path",
        "load_retry_interval_micros",
        "max_num_load_retries",
        "mixed_precision",
        "model_base_path",
        "model_config_file",
        "model_config_file_poll_wait_seconds",
        "model_name",
        "monitoring_config_file",
        "num_load_threads",
        "num_request_iterations_for_warmup",
        "num_tflite_interpreters_per_pool",
        "num_tflite_pools",
        "num_unload_threads",
        "per_process_gpu_memory_fraction",
        "platform_config_file",
        "port",
        "prefer_tflite_model",
        "remove_unused_fields_from_bundle_metagraph",
        "rest_api_enable_cors_support",
        "rest_api_num_threads",
        "rest_api_port",
        "rest_api_timeout_in_ms",
        "saved_model_tags",
        "skip_initialize_tpu",
        "ssl_config_file",
        "tensorflow_inter_op_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_session_config_file",
        "tensorflow_session_parallelism",
        "thread_pool_factory_config_file",
        "use_alts_credentials",
        "version",
        "xla_cpu_compilation_enabled",
        "xla_gpu_compilation_enabled",
    }
)


def server_flags(base_path: str) -> list[str]:
    r"""The flags that start the server on a serving folder, batching each version by its own parameters.

    Args:
        base_path: the folder as the server sees it.

    Example:
        >>> print(*server_flags("/models"), sep="\n")
        --port=8500
        --rest_api_port=8501
        --model_config_file=/models/models.config
        --model_config_file_poll_wait_seconds=60
        --allow_version_labels_for_unavailable_models=true
        --enable_batching=true
        --batching_parameters_file=/models/batching_parameters.txt
        --enable_per_model_batching_parameters=true
        --monitoring_config_file=/models/monitoring.config
    """
    base = base_path.rstrip("/")
    return [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={base}/{MODELS_FILE}",
        f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        # Without it a server refuses, at its start, labels of versions that it is about to load.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        f"--batching_parameters_file={base}/{BATCHING_FILE}",
        "--enable_per_model_batching_parameters=true",
        f"--monitoring_config_file={base}/{MONITORING_FILE}",
    ]


def read_flags(words: Sequence[str]) -> dict[str, str]:
    """The flags among the words of a command line, by name; one without a value is "true".

    Example:
        >>> read_flags(["tensorflow_model_server", "--port=8500", "--enable_batching"])
        {'port': '8500', 'enable_batching': 'true'}
    """
    pairs = (word[2:].partition("=") for word in words if word.startswith("--"))
    return {name: value if equals else "true" for name, equals, value in pairs}


def flag_problems(flags: Mapping[str, str]) -> list[str]:
    """What is wrong in a command line, in words; empty where all is well.

    Args:
        flags: as `read_flags` gives them.

    Example:
        >>> flag_problems({"model_name": "m", "model_base_path": "/m", "batching_parameters_file": "/m/b.txt",
        ...                "enable_batchin": "true"})
        ['the server ignores the unknown flag --enable_batchin. Did you mean --enable_batching?', \
'--batching_parameters_file needs --enable_batching=true, or the server does not start.']
    """
    problems = []
    for name in flags:
        if name not in KNOWN_FLAGS:
            near = difflib.get_close_matches(name, sorted(KNOWN_FLAGS), n=1)
            meant = f" Did you mean --{near[0]}?" if near else ""
            problems.append(f"the server ignores the unknown flag --{name}.{meant}")
    if flags.get("enable_batching", "false").lower() not in {"true", "1"}:
        if flags.get("batching_parameters_file"):
            problems.append("--batching_parameters_file needs --enable_batching=true, or the server does not start.")
        if flags.get("enable_per_model_batching_parameters", "false").lower() in {"true", "1"}:
            problems.append("--enable_per_model_batching_parameters has no effect without --enable_batching=true.")
    if not flags.get("model_config_file") and not flags.get("model_base_path"):
        problems.append("--model_config_file or --model_base_path must tell where the models are.")
    if flags.get("rest_api_port", "0") == flags.get("port", str(GRPC_PORT)):
        problems.append(f"--rest_api_port must differ from --port. Received: {flags['rest_api_port']} for both.")
    return problems
