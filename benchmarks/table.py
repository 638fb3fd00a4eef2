"""Format the benchmark's results as markdown, and write them into docs/benchmark.md."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.results import (
    EVALUATIONS,
    STEPS,
    fastest_here,
    floors,
    unsteady,
    validations,
    versions,
)
from mnist_lstm.views import text_table

BEGIN = {
    "cpu": "<!-- make bench WRITE=1 writes from here -->",
    "bfloat16": "<!-- make bench WRITE=1 with native bfloat16 writes from here -->",
    "cuda": "<!-- make bench DEVICE=cuda WRITE=1 writes from here -->",
}
END = "<!-- to here -->"
NAMES = {  # of each kind's files, without their suffixes
    "cpu": "benchmark",
    "bfloat16": "benchmark-bfloat16",
    "cuda": "benchmark-cuda",
}
DATA_SETS = {"mnist": "MNIST", "digits": "the 8×8 digits"}


def markdown(results: Mapping[str, Any]) -> str:
    """Format all results: the machine, the contenders, the pipeline, growth."""
    contenders = results["contenders"]
    parts = [
        _machine(results),
        _contenders(contenders),
        "\n".join(f"- {remark}" for remark in _remarks(contenders)),
    ]
    if "pipeline" in results:
        parts += ["## The pipeline", _pipeline(results["pipeline"])]
        parts += ["## Growth", _growth(results["growth"])]
    return "\n\n".join(parts)


def written_into(page: str, text: str, kind: str = "cpu") -> str:
    """Replace the text between a kind's markers. Raises ValueError if the page has none.

    The kinds are cpu, bfloat16 (a processor that multiplies it natively) and cuda.
    """
    before, begin, rest = page.partition(BEGIN[kind])
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no `{BEGIN[kind]}` with `{END}` after it")
    return f"{before}{begin}\n\n{text}\n\n{END}{after}"


def duration(seconds: float) -> str:
    """Format seconds: `3.4 s`, or `5 min 20 s` from two minutes on."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _machine(results: Mapping[str, Any]) -> str:
    told = versions(results["contenders"])
    on = f", computing on {told.pop('computes on')}" if "computes on" in told else ""
    libraries = ", ".join(f"{name} {version}" for name, version in told.items())
    count = results["rounds"]
    rounds = "one round" if count == 1 else f"medians of {count} rounds"
    rough = " **Rough: a few steps and a part of the test images.**" if results["quick"] else ""
    return (
        f"{results['machine']}{on}, {results['threads']} threads; {libraries}; commit "
        f"{results['commit']}, {results['date']}; {rounds}.{rough}"
    )


def _contenders(contenders: Sequence[Mapping[str, Any]]) -> str:
    below, here = floors(contenders), fastest_here(contenders)
    rows = []
    for contender in contenders:
        found, floor = contender["summary"], below.get(contender["precision"])
        row = {"contender": contender["name"], "precision": contender["precision"]}
        if "skipped" not in found:
            row |= _measured(found)
            row["whole job"] = duration(found["job"])
            row["× this project"] = f"{found['job'] / here:.2f}" if here else ""
            row["× floor"] = f"{found['job'] / floor:.2f}" if floor else ""
            row |= _memory(found)
        rows.append(row | _why_not(found))
    return _table(rows, words={"contender", "precision", "not measured"})


def _remarks(contenders: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        f"The whole job is {STEPS:,} steps of 128 images and {EVALUATIONS} evaluations on 10,000 "
        "test images; × this project is beside its fastest row, × floor beside the matrix products "
        "alone in the same precision."
    )
    for contender in contenders:
        found = contender["summary"]
        # the first one alone would be slower than the others: it meets this number of images first
        if (added := found.get("validation")) and len(validations(contender["rounds"])) > 2:
            yield (
                f"{contender['name']}, {contender['precision']}: the figure of 5,000 validation "
                f"images, which the others do not have, adds {_time(added)} to an evaluation and "
                f"{duration(EVALUATIONS * added)} to the whole job."
            )

    for contender in contenders:
        if apart := unsteady(contender["rounds"]):
            fastest, slowest = (_time_of_step(seconds) for seconds in apart)
            yield (
                f"{contender['name']}, {contender['precision']}: its steps took between {fastest} "
                f"and {slowest}; the machine had other work, and this row is not to be trusted."
            )


def _pipeline(found: Mapping[str, Any]) -> str:
    if "skipped" in found:
        return f"Not measured: {found['skipped']}"
    data, times = DATA_SETS[found["dataset"]], found["times"]
    rows = {
        f"`make repro` in a fresh clone, on {data}, {found['steps']} steps": found["make_repro"],
        "of it training proper": found["training"],
        "of it evaluation proper": found["evaluation"],
        "**the rest: what the pipeline costs**": found["overhead"],
        **{f"of it {_stage(name)}": seconds for name, seconds in found.get("stages", {}).items()},
        f"`dvc repro` with nothing to do (median of {times})": found["nothing_to_do"],
        f"`make env` with nothing to do (median of {times})": found["environment"],
    }
    lines = [{"what": what, "time": f"{seconds:.2f} s"} for what, seconds in rows.items()]
    return _table(lines, words={"what"})


def _stage(name: str) -> str:
    """A stage's own name, and what was subtracted from its time."""
    proper = {"train": ", without training proper", "evaluate": ", without evaluation proper"}
    return f"the stage {name}{proper.get(name, '')}"


def _growth(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        found = row["summary"]
        line = {"this project, fused": row["name"]}
        line |= {name: f"{size:,}" for name, size in row["sizes"].items()}
        line |= {} if "skipped" in found else _measured(found) | _memory(found)
        lines.append(line | _why_not(found))
    return _table(lines, words={"this project, fused", "not measured"})


def _measured(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "a step": _time_of_step(found["step"]),
        "an evaluation": _time(found["evaluation"]),
    }


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else _time_of_step(seconds)


def _time_of_step(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"


def _memory(found: Mapping[str, Any]) -> dict[str, str]:
    memory = {"peak memory": f"{found['peak_bytes'] / 1e6:,.0f} MB"}
    if found["gpu_peak_bytes"] is not None:
        memory["GPU memory"] = f"{found['gpu_peak_bytes'] / 1e6:,.0f} MB"
    return memory


def _why_not(found: Mapping[str, Any]) -> dict[str, str]:
    return {"not measured": found["skipped"]} if "skipped" in found else {}


def _table(rows: Sequence[Mapping[str, str]], words: Collection[str]) -> str:
    """Format rows, which have cells by column name, as markdown that is aligned in plain text too.

    The columns in `words` are left-aligned; the others have numbers and are right-aligned.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=lambda name: name == "not measured")  # last
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    right = "".join(" " if name in words else "r" for name in names)
    return text_table.markdown(cells, right)
