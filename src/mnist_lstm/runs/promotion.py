"""Decide whether a model becomes the champion, by accuracy on the same validation images."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from mnist_lstm import UserError
from mnist_lstm.data.datasets import OWN
from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.typed_json import DAMAGED
from mnist_lstm.runs.comparison import are_the_same_images
from mnist_lstm.runs.history import History, Result
from mnist_lstm.tracking.entrant import Entrant


def entrant_of(history: History, result: Result) -> Entrant:
    """A result's model, with the accuracy of its latest evaluation.

    Raises UserError if the result was not evaluated, or its record is damaged.
    """
    record, metrics = result.record, history.metrics(result)
    if "validation" not in metrics:
        raise UserError(
            f"{record.name} has not been evaluated; run `dvc repro` in the workspace that has it; "
            "`mnist-lstm runs` shows the state of each run"
        )
    if "validation" not in record.data:
        raise UserError(f"{record.name}: data.validation is missing in its run.json; {DAMAGED}")
    return Entrant(
        name=record.name,
        training_id=record.training_id,
        model_sha256=record.model_sha256,
        dataset=record.dataset,
        validation_sha256=record.data["validation"].sha256,
        validation_images=record.data["validation"].images,
        validation_accuracy=metrics["validation"]["accuracy"],
    )


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the challenger becomes the champion; `why` is the reason in one line."""

    promotes: bool
    why: str


def have_the_same_images(result: Result, champion: Entrant, params: Mapping[str, str]) -> bool:
    """Whether a result was evaluated on the champion's validation images.

    `params` are those of the champion's run in MLflow, as texts. Own images may have changed since,
    so that only the files can say it.
    """
    if result.dataset != champion.dataset:
        return False
    digests = result.record.data["validation"].sha256, champion.validation_sha256
    if result.dataset == OWN:
        return digests[0] == digests[1]
    ours = {key: str(value) for key, value in flatten(result.record.params).items()}
    return are_the_same_images("validation", (ours, params), digests)


def decide(
    challenger: Entrant, champion: Entrant | None, margin: float, *, same_images: bool
) -> PromotionDecision:
    """Compare a model with the champion, if there is one, and if they `have_the_same_images`.

    The challenger must classify more of the same images correctly than the champion, by more than
    `margin`, a fraction of the images. Whole images are compared, not fractions: with
    floating-point numbers, 0.95 - 0.94 > 0.01.
    """
    accuracy = challenger.summary
    if champion is None:
        return PromotionDecision(
            True, f"validation accuracy {accuracy}; there is no champion to compare with"
        )
    if not same_images:
        what = (
            f"{champion.dataset}, not {challenger.dataset}"
            if champion.dataset != challenger.dataset
            else f"{champion.dataset} too, but of a different validation split"
        )
        return PromotionDecision(
            False,
            f"its validation accuracy {accuracy} cannot be compared with the champion's "
            f"{champion.summary}: the validation images of the champion, {champion.name}, are "
            f"those of {what}",
        )
    more = challenger.correct - champion.correct
    needed = Fraction(str(margin)) * challenger.validation_images
    figures = (
        f"validation accuracy {accuracy}; the champion, {champion.name}, has {champion.summary}: "
        f"{_more(more)}, and promote.margin ({margin:g}) requires more than {float(needed):g} more"
    )
    return PromotionDecision(more > needed, figures)


def _more(images: int) -> str:
    if images == 0:
        return "no difference"
    return f"{abs(images):,} {'more' if images > 0 else 'fewer'} correct"
