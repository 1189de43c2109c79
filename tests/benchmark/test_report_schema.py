"""The published schema of report.json is that of the code, and holds what reports are."""

import json
from pathlib import Path

import pytest
from made_reports import made_entry, made_report, timed

from tfopt.benchmark.report import OperatorTime, Report
from tfopt.benchmark.report_schema import schema_text

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
REPORT = made_report(
    made_entry("float32", 4000, timed(1.0), score=0.98),
    made_entry("int8", 1000, timed(0.5), operators=(OperatorTime(name="a", kind="CONV_2D", time_ms=0.1),)),
    made_entry("bad", 10, error="it is broken."),
    price_per_hour=1.0,
)


def test_the_committed_schema_is_current():
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "write it anew: python -m tfopt.benchmark.report_schema > docs/report.schema.json"
    )


def resolve(schema, part):
    return resolve(schema, schema["$defs"][part["$ref"].rpartition("/")[2]]) if "$ref" in part else part


def check(schema, part, value, where="report"):
    """Enough of JSON schema for what pydantic writes; anything else in it fails here."""
    part = resolve(schema, part)
    if "anyOf" in part:
        kinds = [resolve(schema, one) for one in part["anyOf"]]
        fitting = [one for one in kinds if fits(one, value)]
        assert fitting, f"{where}: {value!r}"
        return check(schema, fitting[0], value, where)
    assert fits(part, value), f"{where}: {value!r} is not {part}"
    if isinstance(value, dict):
        for key, one in value.items():
            inner = part.get("properties", {}).get(key, part.get("additionalProperties"))
            assert inner is not False, f"{where}: {key} is not in the schema"
            assert inner is not None, f"{where}: {key} is not in the schema"
            if inner is not True:
                check(schema, inner, one, f"{where}.{key}")
        assert set(part.get("required", ())) <= set(value), where
    if isinstance(value, list):
        for index, one in enumerate(value):
            inner = part["prefixItems"][index] if "prefixItems" in part else part["items"]
            check(schema, inner, one, f"{where}[{index}]")
    return None


def fits(part, value):
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "$ref" in part:
        return isinstance(value, dict)
    if value not in part.get("enum", [value]) or value != part.get("const", value):
        return False
    return "type" not in part or isinstance(value, types[part["type"]])


def test_a_saved_report_is_as_the_schema_says(tmp_path):
    REPORT.save(tmp_path)
    schema, saved = json.loads(schema_text()), json.loads((tmp_path / "report.json").read_text())
    check(schema, schema, saved)
    del saved["entries"][0]["size_bytes"]
    with pytest.raises(AssertionError):
        check(schema, schema, saved)


def test_what_is_derived_is_written_and_not_read(tmp_path):
    REPORT.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["pareto_front"] == ["float32", "int8"]
    assert saved["comparisons"]["int8"]["speedups"][0]["verdict"] == "faster"
    assert saved["derived"]["int8"][0]["figure"] == "$ per 1M inferences"
    saved["pareto_front"] = ["made up"]
    (tmp_path / "report.json").write_text(json.dumps(saved))
    assert Report.load(tmp_path) == REPORT
    assert Report.load(tmp_path).pareto_front == ("float32", "int8")
