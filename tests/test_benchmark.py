"""The parts of `make bench` that can be tested without real measurements."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from samples import PROJECT

from benchmarks import bench, environment, growth, machine, predict, table
from benchmarks.contender import Contender, Work, measure
from benchmarks.contenders.cells import Cells
from benchmarks.contenders.floor import Floor, Products
from benchmarks.contenders.plain import Plain
from benchmarks.contenders.project import Project
from benchmarks.pipeline import timed_stages
from benchmarks.precision import LAST
from benchmarks.process import measured
from benchmarks.results import summary

SMALL = Work(
    warm_up=1,
    blocks=2,
    steps=2,
    evaluations=1,
    evaluated=6,
    threads=1,
    batch_size=4,
    eval_batch_size=3,
    hidden_size=5,
    rows=3,
    pixels=2,
    train_images=9,
    test_images=12,
    validation_images=6,
)


def answer(step: float, evaluation: float, **more: Any) -> dict[str, Any]:
    """The JSON that a contender's process prints for one round."""
    about = {"torch": "2.0", "computes on": "AVX2"}
    rest = {"validation": [], "peak_bytes": 10**9, "gpu_peak_bytes": None, "about": about}
    return {"step": [step], "evaluation": [evaluation]} | rest | more


def results(**rounds: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a run in which each contender was measured once, in float32."""
    contenders = [
        {
            "name": name.title(),
            "contender": name,
            "precision": "float32",
            "summary": summary([found]),
            "rounds": [found],
        }
        for name, found in rounds.items()
    ]
    stages = {"fetch": 1.0, "preprocess": 1.25, "train": 2.0, "evaluate": 2.5}
    seconds = dict.fromkeys(("training", "evaluation", "nothing_to_do", "environment"), 1.0)
    return {
        "machine": "a machine",
        "device": "cpu",
        "threads": 2,
        "date": "2030-01-01",
        "commit": "abc",
        "quick": False,
        "rounds": 1,
        "contenders": contenders,
        "growth": [{"name": "as it is", "sizes": {"steps": 7}, "summary": summary([answer(1, 2)])}],
        "pipeline": seconds
        | {"dataset": "digits", "steps": 9, "times": 3, "make_repro": 9.0, "overhead": 7.25}
        | {"stages": stages},
    }


def cells(text: str, name: str) -> dict[str, str]:
    """The row that begins with a name: its cells by the heads of the table."""
    for part in text.split("\n\n"):
        head, *rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in part.split("\n")
        ]
        for row in rows:
            if row and row[0] == name:
                return dict(zip(head, row, strict=True))
    raise AssertionError(f"no row {name}")


@pytest.mark.parametrize("kind", [Project, Plain, Cells, Floor])
def test_a_contender_answers_with_seconds_and_memory(kind: type[Contender]) -> None:
    found = json.loads(json.dumps(measure(kind, SMALL)))
    assert len(found["step"]) == SMALL.blocks
    assert len(found["evaluation"]) == SMALL.evaluations
    assert all(seconds > 0 for seconds in found["step"])
    assert 50e6 < found["peak_bytes"] < 50e9
    assert found["about"]["torch"]
    assert len(found["validation"]) == (SMALL.evaluations if kind is Project else 0)


def test_the_seconds_of_a_part_of_the_test_images_are_scaled_to_all() -> None:
    class Counting(Floor):
        beside = 2

        def evaluate(self, images: int) -> float:
            return float(images + self.beside)

    assert measure(Counting, SMALL)["evaluation"] == [14.0]


@pytest.mark.parametrize("implementation", ["fused", "unrolled"])
def test_this_project_trains_and_evaluates_in_the_loop_that_is_measured(
    implementation: str,
) -> None:
    project = Project(replace(SMALL, implementation=implementation))
    before = [
        weight.clone() for weight in project.learner.model.parameters() if weight.requires_grad
    ]
    project.train(2)
    after = [weight for weight in project.learner.model.parameters() if weight.requires_grad]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    loop = project.loop(project.validation, project.test, eval_every=2)
    first, second = next(loop), next(loop)
    assert first is None
    assert second is not None
    assert 0 <= second.test_accuracy <= 1


def test_the_floor_multiplies_what_the_model_has_to() -> None:
    floor = Floor(replace(SMALL, hidden_size=256, rows=28, pixels=28))
    gigaflops = {
        (batch, backward): Products(floor, batch, backward=backward).flops / 1e9
        for batch, backward in ((128, True), (128, False), (100, False))
    }
    assert 100 * gigaflops[100, False] == pytest.approx(446.5, abs=1)  # 10,000 images
    assert gigaflops[128, False] == pytest.approx(5.8, abs=0.1)
    # twice the forward products, minus those for the gradient of the pixels, which is not needed
    assert gigaflops[128, True] == pytest.approx(3 * gigaflops[128, False] - 0.21, abs=0.01)


def test_a_contender_that_fails_says_why_in_one_line() -> None:
    why = measured("none_such", SMALL)["skipped"]
    assert re.fullmatch(r"failed: .+: No module named benchmarks\.contenders\.none_such", why)


def test_the_summary_has_medians_over_all_rounds_and_the_highest_memory() -> None:
    found = summary([answer(1, 5, peak_bytes=3), answer(9, 6, peak_bytes=7), answer(2, 4)])
    assert (found["step"], found["evaluation"], found["peak_bytes"]) == (2, 5, 10**9)
    assert found["job"] == 2_000 * 2 + 40 * 5


def test_a_contender_that_failed_in_one_round_has_no_summary() -> None:
    assert summary([answer(1, 5), {"skipped": "broken"}]) == {"skipped": "broken"}


def test_the_table_has_each_ones_ratio_to_the_floor_and_to_this_project() -> None:
    text = table.markdown(
        results(
            project=answer(0.2, 5, validation=[9.0, 2.5, 1.5]),
            plain=answer(0.6, 15),
            floor=answer(0.1, 2.5),
        )
    )
    assert cells(text, "Plain") == {
        "contender": "Plain",
        "precision": "float32",
        "a step": "600 ms",
        "an evaluation": "15.00 s",
        "whole job": "30 min 00 s",
        "× this project": "3.00",
        "× floor": "6.00",
        "peak memory": "1,000 MB",
    }
    assert "validation images, which the others do not have, adds 2.50 s" in text
    assert "100 s to the whole job" in text
    once = table.markdown(results(project=answer(0.2, 5, validation=[9.0])))
    assert "validation images, which the others do not have" not in once
    assert "a machine, computing on AVX2, 2 threads; torch 2.0; commit abc, 2030-01-01" in text
    assert "Rough" not in text


def test_what_was_not_measured_has_a_row_that_says_why() -> None:
    text = table.markdown(results(project=answer(0.2, 5), plain={"skipped": "no such library"}))
    row = cells(text, "Plain")
    assert row["not measured"] == "no such library"
    assert row["whole job"] == ""


def test_the_table_warns_of_a_machine_that_had_other_work() -> None:
    steady = answer(0.2, 5) | {"step": [0.2, 0.29]}
    disturbed = answer(0.2, 5) | {"step": [0.2, 0.2, 0.5]}
    text = table.markdown(results(project=steady, plain=disturbed))
    assert re.findall(r"- (.+): its steps took between (.+) and (.+);", text) == [
        ("Plain, float32", "200 ms", "500 ms")
    ]


def test_the_table_has_the_pipeline_and_growth() -> None:
    text = table.markdown(results(project=answer(0.2, 5)))
    assert cells(text, "**the rest: what the pipeline costs**")["time"] == "7.25 s"
    assert cells(text, "of it the stage train, without training proper")["time"] == "2.00 s"
    assert cells(text, "as it is")["steps"] == "7"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.44, "3.4 s"), (119.4, "119 s"), (119.6, "2 min 00 s"), (320.2, "5 min 20 s")],
)
def test_duration_formats_seconds(seconds: float, said: str) -> None:
    assert table.duration(seconds) == said


def test_the_page_has_its_place_for_the_table_and_keeps_the_rest() -> None:
    page = (PROJECT / "docs" / "benchmark.md").read_text()
    once = table.written_into(page, "old")
    assert table.written_into(once, "new") == once.replace("\nold\n", "\nnew\n") != once
    assert once.startswith(page[: page.index(table.BEGIN["cpu"])])
    assert table.written_into(page, "old", "cuda") != once
    with pytest.raises(ValueError, match="no `<!-- make bench"):
        table.written_into("# A page", "table")


def record(kind: str) -> dict[str, Any]:
    """The committed results of a kind of machine."""
    path = PROJECT / "benchmarks" / f"{table.NAMES[kind]}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("kind", table.NAMES)
def test_the_page_has_what_is_on_record(kind: str) -> None:
    name, recorded = table.NAMES[kind], record(kind)
    assert not recorded["quick"]
    page = bench.PAGE.read_text()
    text = f"![The whole job of each contender]({name}.png)\n\n{table.markdown(recorded)}"
    assert table.written_into(page, text, kind) == page
    assert (bench.PAGE.parent / f"{name}.png").is_file()


def jobs(kind: str) -> dict[tuple[str, str], float]:
    """The seconds of the whole job, by contender and precision, of a kind's record."""
    return {
        (entry["name"], entry["precision"]): entry["summary"]["job"]
        for entry in record(kind)["contenders"]
        if "job" in entry["summary"]
    }


def test_the_readme_has_what_is_on_record() -> None:
    project, reference = "this project, fused", "TensorFlow: the reference's graph"
    readme = " ".join((PROJECT / "README.md").read_text().split())
    of = {name: seconds for (name, _), seconds in jobs("cpu").items()}
    ours, graph, keras = of[project], of[reference], of["Keras 3: LSTM layers, fit"]
    assert (
        f"take {table.duration(ours)}: {graph / ours:.1f} times as fast as the script's graph in "
        f"TensorFlow 2 and {keras / ours:.1f} times as fast as Keras' `fit`"
    ) in readme
    native = jobs("bfloat16")
    ours, graph = native[project, "bfloat16"], native[reference, "float32"]
    assert (
        f"take {table.duration(ours)}: {graph / ours:.1f} times as fast as the graph on the same "
        "cores"
    ) in readme


@pytest.mark.parametrize(
    ("precision", "file"), [("bfloat16", "precision-cpu.csv"), ("float32", "reproduction.csv")]
)
def test_the_page_has_the_seeds_of_each_precision(precision: str, file: str) -> None:
    accuracies: dict[str, list[float]] = {}
    with (PROJECT / "benchmarks" / file).open(newline="") as rows:
        for row in csv.DictReader(rows):
            accuracies.setdefault(row["seed"], []).append(float(row["test_accuracy"]))
    means = [mean(found[-LAST:]) for found in accuracies.values()]
    figures = [
        *(f"{figure:.2%}" for figure in means),
        f"{mean(means):.2%} ± {100 * stdev(means):.2f}",
    ]
    assert len(means) == 5
    assert f"\n| {precision} | {' | '.join(figures)} |\n" in bench.PAGE.read_text()


def test_a_stage_lasts_until_the_next_one_starts(tmp_path: Path) -> None:
    program = tmp_path / "dvc"
    text = "#!/bin/sh\necho \"Running stage 'one':\"\necho \"Running stage 'two':\"\n"
    program.write_text(text)
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    stages, everything = timed_stages(tmp_path, environment)
    assert list(stages) == ["one", "two"]
    assert 0 < stages["one"] < sum(stages.values()) < everything
    program.write_text(f"{text}echo wrong\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError) as error:
        timed_stages(tmp_path, environment)
    assert error.value.stderr.splitlines()[-1] == "wrong"


def test_each_growth_doubles_one_thing() -> None:
    as_it_is, *others = (asdict(work) for work in growth.doubled(SMALL).values())
    assert as_it_is == asdict(SMALL)
    changed = [{key for key in work if work[key] != as_it_is[key]} for work in others]
    images = {"train_images", "test_images", "validation_images", "evaluated"}
    assert changed == [{"blocks"}, {"hidden_size"}, {"rows"}, images]
    for work, keys in zip(others, changed, strict=True):
        assert all(work[key] == 2 * as_it_is[key] for key in keys)


def test_threads_are_those_of_omp_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine.threads() == machine.cores() >= 1


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags : avx2 avx512f avx512bw", False),
        ("flags : avx512f avx512_bf16", True),
        ("flags : avx512f amx_bf16", True),
        ("Features : asimd bf16", True),
        ("Features : asimd", False),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac is asked in another way")
def test_bfloat16_is_native_where_the_processor_says_so(
    flags: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.multiplies_bfloat16() == native
    entry = bench.Entry("floor", "floor", "bfloat16")
    assert bool(bench.not_here(entry, "cpu", "")) != native
    assert bench.not_here(entry, "cuda", "") == ""


def test_without_tensorflow_its_rows_say_so_and_the_others_are_measured() -> None:
    float32 = [entry for entry in bench.ENTRIES if entry.precision == "float32"]
    missing = {entry.contender: bench.not_here(entry, "cpu", "no network") for entry in float32}
    assert {name for name, why in missing.items() if why} == {"reference", "keras_fit"}
    assert missing["reference"] == "no network"


def test_an_environment_that_cannot_be_made_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text("not a requirement!\n")
    monkeypatch.setattr(environment, "FOLDER", tmp_path / "venv")
    monkeypatch.setattr(environment, "MADE_FROM", tmp_path / "venv" / "made-from")
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    with pytest.raises(
        environment.Unavailable, match=r"^TensorFlow could not be installed \(.+\)$"
    ):
        environment.python()
    assert "to download" in capsys.readouterr().out
    assert not environment.MADE_FROM.exists()


def test_its_lock_pins_everything_and_names_no_address() -> None:
    lock = environment.LOCK.read_text()
    packages = re.findall(r"(?m)^(\S.*?) \\?$", lock)
    assert all(re.match(r"[\w.-]+==\S+( ;|$)", package) for package in packages)
    assert any(package.startswith("tensorflow-cpu==") for package in packages)
    assert "://" not in lock


def test_a_picture_with_two_doubts_is_doubted_once_and_a_refused_one_is_not() -> None:
    said = "".join(
        f"mnist-lstm predict: /folder/{file}.png: {what}\n"
        for file, what in ((0, "one doubt"), (0, "another"), (1, "blank"), (2, "one doubt"))
    )
    read = ["/folder/0.png", "/folder/2.png", "/folder/3.png"]
    assert predict.doubted(said, read) == 2
