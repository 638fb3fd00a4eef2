"""Compare runs: which parameters differ, and which model classifies more images correctly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_lstm.pipeline.params import flatten, format_value
from mnist_lstm.runs.history import History, Partial, Result

LEVEL = 0.05  # the significance level: a p below it is called more than chance
CHOOSE_VALIDATION = ("preprocess.validation_size", "preprocess.split_seed")


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    `only_first` and `only_second` are the numbers of images that only this model classifies
    correctly. `p` is the probability that two equally good models differ at least as much.
    """

    images: int
    only_first: int
    only_second: int
    p: float

    @property
    def more_than_chance(self) -> bool:
        """Whether the difference is significant."""
        return self.p < LEVEL


def pair(history: History, first: Result | Partial, second: Result | Partial) -> Paired | str:
    """Compare the answers of two runs to the test images; if that is impossible, return why."""
    sets = [result.dataset for result in (first, second)]
    if sets[0] != sets[1]:
        return f"its test images are from {sets[1]}, not from {sets[0]}"
    answers = []
    for result in (first, second):
        evaluation = result.evaluations[-1] if result.evaluations else {}
        rows = history.rows(evaluation, "predictions.csv")
        answers.append([row for row in rows if row["split"] == "test"])
        if not rows:
            return f"the answers of {result.name} are not in its results"
    actual = [[row["actual"] for row in rows] for rows in answers]
    settings = [flatten(result.params) for result in (first, second)]
    files = [_test_sha256(result) for result in (first, second)]
    if actual[0] != actual[1] or not are_the_same_images("test", settings, files):
        return f"its test images differ, although both data sets are called {sets[0]}"
    return paired(actual[0], *([row["predicted"] for row in rows] for rows in answers))


def paired(actual: Sequence[int], first: Sequence[int], second: Sequence[int]) -> Paired:
    """Compare two models' answers to the same images. Each argument has one label per image.

    McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12 (1947), in its exact form: see `mcnemar`.
    """
    rights = [
        (one == label, other == label)
        for label, one, other in zip(actual, first, second, strict=True)
    ]
    only_first, only_second = rights.count((True, False)), rights.count((False, True))
    return Paired(len(rights), only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p of McNemar's exact test.

    Images that both models classify correctly, or both wrongly, do not count. If the models are
    equally good, each other image is the toss of a fair coin, and p is the probability of tosses at
    least this uneven: twice the shorter tail of the binomial distribution.
    """
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    ways = tail = 1  # to get no head; each next number of ways follows from the last one
    for heads in range(1, fewer + 1):
        ways = ways * (tosses - heads + 1) // heads
        tail += ways
    return min(1.0, 2 * tail / 2**tosses)  # of whole numbers: only the division rounds


def are_the_same_images(
    split: str, params: Sequence[Mapping[str, Any]], digests: Sequence[str | None]
) -> bool:
    """Whether two trainings on one data set are judged by the same images of a split.

    `params` are those of each by dotted key, and `digests` those of its files. A file of sequences
    begins with the parameters of preprocess. So if these differ, or if there are no digests (in
    early records, and without run.json), the parameters that choose the images say it.
    """
    one, two = (
        {key: value for key, value in each.items() if key.startswith("preprocess.")}
        for each in params
    )
    if all(digests) and (one == two or digests[0] == digests[1]):
        return digests[0] == digests[1]
    return split == "test" or all(one.get(key) == two.get(key) for key in CHOOSE_VALIDATION)


def differing(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the parameters that differ between any two of these, or that some lack."""
    keys = dict.fromkeys(key for each in params for key in each)
    return [key for key in keys if any(not _same(each, params[0], key) for each in params)]


def cell(params: Mapping[str, Any], key: str) -> str:
    """A parameter's value in a table; – if it is not among the parameters."""
    return format_value(params[key]) if key in params else "–"


def _same(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> bool:
    return (key in first) == (key in second) and first.get(key) == second.get(key)


def _test_sha256(result: Result | Partial) -> str | None:
    file = result.record.data.get("test") if result.record else None
    return file.sha256 if file else None
