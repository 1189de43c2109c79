"""The JSON schema of report.json: `python -m tfopt.benchmark.report_schema > docs/report.schema.json` publishes it."""

from __future__ import annotations

import json

from tfopt.benchmark.report import Report

__all__ = ["schema_text"]


def schema_text() -> str:
    """What `Report.save` writes into report.json, as a JSON schema (draft 2020-12).

    Example:
        >>> json.loads(schema_text())["title"]
        'Report'
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
