"""Generate docs/parameters.md and params.schema.json from pipeline/params. Run: make docs"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mnist_lstm.pipeline.params import Params, format_value, values_of

PROJECT = Path(__file__).resolve().parents[1]
HEAD = """\
# Parameters

These are all values of [`params.yaml`](../params.yaml). Change a value there, then run `dvc repro`.
The reference recipe is [`recipes/reference.yaml`](../recipes/reference.yaml). The last column names
the stages that run again: those that read the value, and those whose input changes because of it.
`make docs` generates this page from the types in
[`pipeline/params.py`](../src/mnist_lstm/pipeline/params.py); the same types refuse a value that is
out of range. Editors that know YAML schemas complete and check the file with
[`params.schema.json`](../params.schema.json).

| Name | Meaning | Unit | Range | Reference recipe | Runs again |
|---|---|---|---|---|---|
"""


def generated() -> dict[str, str]:
    """The content of each generated file, by its path in the project."""
    schema = Params.model_json_schema()
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    entries = dict(_entries(schema, schema["$defs"]))
    reference = values_of(PROJECT / "recipes" / "reference.yaml", list(entries))
    rows = [
        (
            f"`{key}`",
            entry["description"],
            entry.get("unit", ""),
            _range(entry),
            f"`{format_value(reference[key])}`",
            ", ".join(_rerun(key, stages)) or "nothing",
        )
        for key, entry in entries.items()
    ]
    return {
        "docs/parameters.md": HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows),
        "params.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
    }


def _entries(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The schema of each value, by its dotted key, in the order of params.yaml."""
    found = []
    for name, entry in schema["properties"].items():
        if "$ref" in entry:
            inner = _entries(sections[entry["$ref"].rpartition("/")[2]], sections)
            found += [(f"{name}.{key}", leaf) for key, leaf in inner]
        else:
            found.append((name, entry))
    return found


def _range(entry: Mapping[str, Any]) -> str:
    """Describe the values that a schema allows. Knows only what the types of params.yaml use."""
    if "anyOf" in entry:
        return " or ".join(_range(one) for one in entry["anyOf"])
    if names := entry.get("enum", entry.get("examples")):
        return ", ".join(f"`{name}`" for name in names)
    if entry["type"] == "boolean":
        return "`true` or `false`"
    kinds = {"integer": "whole number", "number": "number", "null": "`null`", "string": "text"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_limit(entry[key])}" for key, sign in limits.items() if key in entry]
    return " ".join([kinds[entry["type"]], " and ".join(bounds)]).strip()


def _limit(bound: float) -> str:
    return "2⁶³" if bound == 2**63 else f"{bound:g}"


def _rerun(key: str, stages: Mapping[str, Any]) -> list[str]:
    """The stages that run again after a change of a key: they read it or a changed file."""
    found: list[str] = []
    changed: set[str] = set()
    for name, stage in stages.items():  # in the order in which they run
        reads = any(f"{key}.".startswith(f"{param}.") for param in stage.get("params", ()))
        if reads or changed & set(stage["deps"]):
            found.append(name)
            outs = [*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())]
            changed |= {path for out in outs for path in ([out] if isinstance(out, str) else out)}
    return found


if __name__ == "__main__":
    for name, content in generated().items():
        (PROJECT / name).write_text(content, encoding="utf-8")
        print(f"wrote {name}")
