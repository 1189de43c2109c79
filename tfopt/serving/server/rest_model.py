"""The JSON of a model's status and metadata."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import json_format  # type: ignore[import-untyped]

from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.model_store import VersionStatus
from tfopt.serving.server.rest_json import dump_json

__all__ = ["metadata_response", "status_response"]


def status_response(statuses: Sequence[VersionStatus]) -> bytes:
    """Writes the state of versions, as TF Serving writes a GetModelStatusResponse.

    Example:
        >>> from tfopt.serving.server.model_store import State
        >>> status_response([VersionStatus(2, State.AVAILABLE)])
        b'{"model_version_status":[{"version":"2","state":"AVAILABLE","status":\
{"error_code":"OK","error_message":""}}]}'
    """
    return dump_json(
        {
            "model_version_status": [
                {
                    "version": str(status.version),  # a 64-bit number, which protobuf's JSON has in quotes
                    "state": status.state,
                    "status": {"error_code": status.error_code, "error_message": status.error_message},
                }
                for status in statuses
            ]
        }
    )


def metadata_response(model: LoadedVersion) -> bytes:
    """Writes the signatures of a version, as TF Serving writes a GetModelMetadataResponse."""
    signatures = json_format.MessageToDict(
        model.metadata, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return dump_json(
        {
            "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
            "metadata": {"signature_def": signatures},
        }
    )
