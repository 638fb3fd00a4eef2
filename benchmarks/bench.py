"""Measure this project and its alternatives in one run on one machine. Run: make bench

Each contender runs in its own process. The contenders take turns in several rounds, so that a
machine that is slower for a while slows all of them. Images are random: the time does not depend
on them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import environment, growth, machine, pipeline, table
from benchmarks.contender import Work
from benchmarks.process import PROJECT, measured
from benchmarks.results import summary
from mnist_lstm import git

PAGE = PROJECT / "docs" / "benchmark.md"
LATEST = PROJECT / ".bench"


@dataclass(frozen=True)
class Entry:
    """A row of the table: a file of contenders/ and what it is to measure."""

    name: str
    contender: str
    precision: str = "float32"
    implementation: str = "fused"
    library: str = "torch"


ENTRIES = (
    *(
        Entry(f"this project, {implementation}", "project", precision, implementation)
        for implementation in ("fused", "unrolled")
        for precision in ("bfloat16", "float32")
    ),
    Entry("PyTorch: nn.LSTM, the plain loop", "plain"),
    Entry("PyTorch: LSTMCells, unrolled", "cells"),
    Entry("TensorFlow: the reference's graph", "reference", library="tensorflow"),
    Entry("Keras 3: LSTM layers, fit", "keras_fit", library="tensorflow"),
    Entry("floor: the matrix products alone", "floor", "bfloat16"),
    Entry("floor: the matrix products alone", "floor", "float32"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure less exactly, in minutes")
    parser.add_argument("--write", action="store_true", help="write into docs/ and benchmarks/")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument(
        "--contenders", action="store_true", help="measure neither growth nor the pipeline"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        sys.exit("bench: QUICK=1 is too inexact for docs/; leave out QUICK=1 or WRITE=1")
    try:
        results = measure(
            quick=arguments.quick,
            device=arguments.device,
            alone=arguments.contenders,
            rounds=arguments.rounds,
        )
    except KeyboardInterrupt:
        print("bench: stopped; nothing was written", file=sys.stderr)
        sys.exit(130)
    print(f"\n{table.markdown(results)}\n")
    write(results, for_the_record=arguments.write)


def measure(*, quick: bool, device: str, alone: bool, rounds: int | None) -> dict[str, Any]:
    """Measure everything, or only the contenders. Returns the content of the JSON file."""
    work, usual = size(quick=quick, device=device)
    rounds = rounds or usual
    say(f"{'about 4' if quick else 'about 15'} minutes on two cores, without a download")
    pythons, missing = {"torch": Path(sys.executable)}, ""
    if device == "cpu":
        try:
            pythons["tensorflow"] = environment.python()
        except environment.Unavailable as reason:
            missing = str(reason)

    answers: dict[Entry, list[dict[str, Any]]] = {}
    for entry in ENTRIES:
        if why := not_here(entry, device, missing):
            answers[entry] = [{"skipped": why}]
    for number in range(1, rounds + 1):
        for entry in ENTRIES:
            before = answers.setdefault(entry, [])
            if any("skipped" in answer for answer in before):
                continue
            asked = replace(work, precision=entry.precision, implementation=entry.implementation)
            answer = measured(entry.contender, asked, pythons[entry.library])
            before.append(answer)
            say(
                f"round {number} of {rounds}: {entry.name}, {entry.precision}: "
                f"{format_answer(answer)}"
            )
    contenders = [
        {
            "name": entry.name,
            "contender": entry.contender,
            "precision": entry.precision,
            "summary": summary(answers[entry]),
            "rounds": answers[entry],
        }
        for entry in ENTRIES
    ]
    results = {
        "machine": machine.describe(),
        "device": device,
        "threads": work.threads,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "quick": quick,
        "rounds": rounds,
        "contenders": contenders,
    }
    return results if alone else results | _others(work, quick=quick)


def _others(work: Work, *, quick: bool) -> dict[str, Any]:
    """Measure how time grows with sizes, and what the pipeline costs apart from the training."""
    grown = [row | {"summary": summary([row["round"]])} for row in growth.measure(work, say)]
    try:
        steps, times = (50, 1) if quick else (200, 5)
        piped = pipeline.measure(work.threads, steps=steps, times=times, say=say)
    except subprocess.CalledProcessError as error:
        *_, last = (error.stderr or "").strip().splitlines() or [f"exit code {error.returncode}"]
        piped = {"skipped": f"failed: {' '.join(error.cmd[:3])}: {last}"}
    return {"growth": grown, "pipeline": piped}


def size(*, quick: bool, device: str) -> tuple[Work, int]:
    """The work of each process, and the number of rounds."""
    threads = machine.threads()
    if device == "cuda":
        work = Work(50, 3, 100, evaluations=3, evaluated=10_000, threads=threads, device=device)
        return (replace(work, warm_up=20, blocks=2, steps=50), 1) if quick else (work, 3)
    if quick:
        return Work(2, 3, 2, evaluations=1, evaluated=2_000, threads=threads), 1
    return Work(3, 3, 8, evaluations=1, evaluated=10_000, threads=threads), 3


def not_here(entry: Entry, device: str, missing: str) -> str:
    """Why an entry cannot be measured here; empty if it can."""
    if entry.library == "tensorflow":
        return "measured only on a CPU" if device != "cpu" else missing
    if entry.precision == "bfloat16" and device == "cpu" and not machine.multiplies_bfloat16():
        return "this processor does not multiply bfloat16 natively"
    return ""


def format_answer(answer: Mapping[str, Any]) -> str:
    """Format the result of a process as one line."""
    found = summary([answer])
    if "skipped" in found:
        return str(found["skipped"])
    return f"{found['step'] * 1000:.1f} ms a step, {found['evaluation']:.2f} s an evaluation"


def commit() -> str:
    """The project's commit, and whether the files differ from it."""
    if not git.is_repository(PROJECT):
        return "unknown"
    described = git.git(PROJECT, "describe", "--always", "--dirty", "--exclude=*")
    return described.decode().strip()


def write(results: Mapping[str, Any], *, for_the_record: bool) -> None:
    """Write JSON and figure into .bench/; for the record, into git's folders, with the page."""
    # imported only now: a process's peak memory is at least that of its parent at its start
    from benchmarks.figure import whole_jobs
    from mnist_lstm.views.figures import save

    kind = results["device"]
    if kind == "cpu" and machine.multiplies_bfloat16():
        kind = "bfloat16"
    name = table.NAMES[kind]
    tables, pictures = (PROJECT / "benchmarks", PAGE.parent) if for_the_record else (LATEST, LATEST)
    paths = {".json": tables / f"{name}.json", ".png": pictures / f"{name}.png"}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    paths[".json"].write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if any("job" in contender["summary"] for contender in results["contenders"]):
        save(whole_jobs(results), paths[".png"])
    written = list(paths.values())
    if for_the_record:
        text = f"![The whole job of each contender]({name}.png)\n\n{table.markdown(results)}"
        page = table.written_into(PAGE.read_text(), text, kind)
        PAGE.write_text(page)
        written.append(PAGE)
    say(f"written: {', '.join(str(path.relative_to(PROJECT)) for path in written)}")


def say(line: str) -> None:
    """Print what is being measured."""
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    main()
