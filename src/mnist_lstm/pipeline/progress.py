"""Bars on a terminal: files that arrive, parts of a work, a training's steps.

Nothing is drawn elsewhere. The steps of a training and its evaluations are timed apart.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    import torch

REMEMBERED = 10  # evaluations, and the stretches of steps between them, that the times are means of

Part = TypeVar("Part")


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar whose clock is never set back; tqdm's own would stand still then."""

    _time = property(lambda _: time.perf_counter, lambda _, __: None)


def of(parts: Sequence[Part], what: str, file: TextIO | None = None) -> Iterator[Part]:
    """The parts, one after the other, with a bar that counts those that are done."""
    form = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
    yield from Bar(parts, what, leave=False, disable=None, bar_format=form, file=file)


@contextmanager
def of_downloads(file: TextIO | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """A function that draws a file's arrival: its name, the bytes that arrived, those expected.

    Nothing is drawn before the first call.
    """
    bar: Any = None

    def show(name: str, arrived: int, expected: int) -> None:
        nonlocal bar
        if bar is None:
            look: dict[str, Any] = {"unit": "B", "unit_scale": True, "leave": False}
            bar = Bar(desc=name, total=expected, disable=None, file=file, **look)
        if bar.disable:  # it has no other attributes then
            return
        if arrived < bar.n or name != bar.desc:
            bar.set_description_str(name, refresh=False)
            bar.reset(expected)
        bar.update(arrived - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


class Pace:
    """The seconds that a step and an evaluation take.

    They are measured from one evaluation to the next, since a GPU does not tell when a step ends.
    The steps before the first evaluation are slower: libraries set themselves up in them. They
    count only until the second evaluation.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()  # the end of the last evaluation
        self._steps = 0  # since then
        self._stretches: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)  # of steps: seconds
        self._evaluations: deque[float] = deque(maxlen=REMEMBERED)  # seconds
        self._is_first = True

    def stepped(self) -> None:
        """Count a step that has no evaluation."""
        self._steps += 1

    def evaluates(self) -> None:
        """Note that a step is done, and an evaluation begins."""
        now = self._clock()
        if len(self._stretches) == 1 and self._is_first:
            self._stretches.clear()
            self._is_first = False
        self._stretches.append((self._steps + 1, now - self._since))
        self._since = now

    def evaluated(self) -> None:
        """Note that the evaluation is done."""
        now = self._clock()
        self._evaluations.append(now - self._since)
        self._since, self._steps = now, 0

    @property
    def step(self) -> float | None:
        """The seconds of a step; None before the first one."""
        if not self._stretches:
            return (self._clock() - self._since) / self._steps if self._steps else None
        return sum(seconds for _, seconds in self._stretches) / sum(n for n, _ in self._stretches)

    def left(self, steps: int, evaluations: int) -> float | None:
        """The seconds that so many steps and evaluations will take; None before the first step."""
        if self.step is None:
            return None
        each = sum(self._evaluations) / len(self._evaluations) if self._evaluations else 0.0
        return steps * self.step + evaluations * each


class StepBar(Bar):
    """A bar of a training's steps on a terminal, with the pace of the steps and the time left.

    `fit` calls `evaluates` before each evaluation.
    """

    def __init__(
        self, step: int, steps: int, eval_every: int, device: "torch.device", **settings: Any
    ) -> None:
        self.pace, self.device, self.eval_every = Pace(), device, eval_every
        super().__init__(
            initial=step,
            total=steps,
            disable=settings.pop("disable", None),  # None: unless it is a terminal
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}, {pace}, {left} left{postfix}]",
            **settings,
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values of `bar_format`: those of tqdm, the pace and the time left."""
        shown = dict(super().format_dict)
        n, total, every = shown["n"], shown["total"], self.eval_every
        evaluations = -(-total // every) - n // every if n < total else 0
        left, step = self.pace.left(total - n, evaluations), self.pace.step
        return shown | {
            "pace": _rate(1 / step) if step else "? steps/s",
            "left": "?" if left is None else tqdm.format_interval(left),
        }

    def evaluates(self) -> None:
        """Wait until the GPU has done its steps, and note that an evaluation begins."""
        if self.device.type == "cuda" and not self.disable:
            import torch  # fetch draws bars, too, and needs no torch

            torch.cuda.synchronize(self.device)
        self.pace.evaluates()

    def stepped(self, *, evaluated: bool) -> None:
        """Count a step, after which an evaluation may have been made."""
        (self.pace.evaluated if evaluated else self.pace.stepped)()
        self.update()


def _rate(steps: float) -> str:
    return f"{steps:,.0f} steps/s" if steps >= 10 else f"{steps:.2f} steps/s"
