"""The bars on a terminal; the pace and the time left of a training, by a clock of the test's."""

import io
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from mnist_lstm.pipeline import progress
from mnist_lstm.pipeline.progress import REMEMBERED, Pace, StepBar


class Terminal(io.StringIO):
    """A terminal that keeps what is drawn; tqdm asks which one it is."""

    def isatty(self) -> bool:
        return True

    def drawn(self) -> list[str]:
        """What was to be seen, one after the other, without the lines that were cleared."""
        return [text.strip() for text in self.getvalue().split("\r") if text.strip()]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def train(pace: Pace, clock: Clock, steps: int, step: float, evaluation: float) -> None:
    """So many steps of `step` seconds, and an evaluation after the last one."""
    for _ in range(steps - 1):
        clock.now += step
        pace.stepped()
    clock.now += step
    pace.evaluates()
    clock.now += evaluation
    pace.evaluated()


def test_steps_and_evaluations_are_timed_apart_and_the_slow_first_ones_do_not_count() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert (pace.step, pace.left(10, 1)) == (None, None)
    train(pace, clock, 10, step=1.0, evaluation=8.0)
    assert pace.step == pytest.approx(1.0)
    assert pace.left(20, 2) == pytest.approx(20 * 1.0 + 2 * 8.0)
    for _ in range(2):  # steady from the second evaluation on
        train(pace, clock, 10, step=0.25, evaluation=8.0)
        assert pace.step == pytest.approx(0.25)
        assert pace.left(20, 2) == pytest.approx(20 * 0.25 + 2 * 8.0)


def test_between_evaluations_the_pace_stays() -> None:
    """A GPU returns from a step at once, and does it later."""
    clock = Clock()
    pace = Pace(clock)
    pace.stepped()
    clock.now += 2.0
    assert pace.step == pytest.approx(2.0)  # nothing better is known before the first evaluation
    for _ in range(2):
        train(pace, clock, 10, step=0.5, evaluation=1.0)
    for _ in range(9):
        pace.stepped()
        assert pace.step == pytest.approx(0.5)


def test_a_machine_that_slows_down_is_followed() -> None:
    clock = Clock()
    pace = Pace(clock)
    train(pace, clock, 10, step=0.1, evaluation=1.0)
    for seconds in (0.1, 0.4):
        for _ in range(REMEMBERED):
            train(pace, clock, 10, step=seconds, evaluation=1.0)
        assert pace.step == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("step", "shown"), [(0.002, "500 steps/s"), (0.05, "20 steps/s"), (3.0, "0.33 steps/s")]
)
def test_the_bar_says_steps_per_second_and_the_time_left(step: float, shown: str) -> None:
    clock, terminal = Clock(), io.StringIO()
    bar = StepBar(0, 100, 10, torch.device("cpu"), file=terminal, ascii=True, disable=False)
    bar.pace = Pace(clock)
    for _ in range(3):
        train(bar.pace, clock, 10, step=step, evaluation=1.0)
    bar.n = 30
    bar.refresh()
    drawn = terminal.getvalue().rpartition("\r")[2]
    assert "30/100 [" in drawn
    assert "s/ " not in drawn
    left = int(70 * step + 7.0)
    assert f", {shown}, {left // 60:02}:{left % 60:02} left]" in drawn
    bar.close()


def test_a_bar_counts_the_parts_of_a_work() -> None:
    terminal = Terminal()
    assert list(progress.of("ab", "reading", terminal)) == ["a", "b"]
    first = terminal.drawn()[0]
    assert first.startswith("reading |")
    assert first.endswith("| 0/2 [00:00]")


def test_a_bar_is_drawn_when_a_file_arrives_and_is_named_by_it() -> None:
    terminal = Terminal()
    with progress.of_downloads(terminal) as show:
        assert terminal.drawn() == []
        for name in ("images.gz", "labels.gz"):
            show(name, 1000, 4000)
            show(name, 4000, 4000)
    assert [text.partition(" ")[0] for text in terminal.drawn()] == ["images.gz:", "labels.gz:"]


def test_the_bar_goes_on_if_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(), io.StringIO()
    monkeypatch.setattr("mnist_lstm.pipeline.progress.time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr("tqdm.std.time", lambda: 1e9 - clock.now)
    bar = StepBar(0, 100, 10, torch.device("cpu"), file=terminal, ascii=True, disable=False)
    for step in range(3):
        clock.now += 65
        bar.update()
        assert f"{step + 1}/100 [0{step + 1}:{5 * step + 5:02}, " in terminal.getvalue()
    bar.close()


def test_nothing_is_drawn_elsewhere() -> None:
    pipe = io.StringIO()
    assert list(progress.of("ab", "reading", pipe)) == ["a", "b"]
    with progress.of_downloads(pipe) as show:
        show("images.gz", 1000, 4000)
        show("images.gz", 4000, 4000)
    with StepBar(0, 2, 1, torch.device("cpu"), file=pipe) as bar:
        for _ in range(2):
            bar.evaluates()
            bar.stepped(evaluated=True)
    assert pipe.getvalue() == ""
