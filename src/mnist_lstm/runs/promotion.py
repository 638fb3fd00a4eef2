"""Which of two models is to be used, by their accuracy on the same validation images alone."""

from dataclasses import dataclass
from fractions import Fraction

from mnist_lstm import UserError
from mnist_lstm.runs.history import History, Result
from mnist_lstm.tracking.entrant import Entrant


def entrant_of(history: History, result: Result) -> Entrant:
    """A result's model, with the accuracy of its latest evaluation.

    Raises UserError where it was not evaluated.
    """
    record, metrics = result.record, history.metrics(result)
    if "validation" not in metrics:
        raise UserError(
            f"{record.name} has not been evaluated; `dvc repro` in the workspace that has it "
            "does that, and `mnist-lstm runs` shows which have been"
        )
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
    """Whether a challenger is to be the champion, and why or why not, in a line with figures."""

    promotes: bool
    why: str


def decide(challenger: Entrant, champion: Entrant | None, margin: float) -> PromotionDecision:
    """Compare a model with the champion, if there is one.

    The challenger must read more of the same images right, by more than `margin`, a fraction of
    them. Whole images are counted: 0.95 - 0.94 > 0.01 is true of floating-point numbers.
    """
    accuracy = challenger.summary
    if champion is None:
        return PromotionDecision(
            True, f"{accuracy} of the validation images read right, and no champion to beat"
        )
    if challenger.validation_sha256 != champion.validation_sha256:
        what = (
            f"{champion.dataset}, not {challenger.dataset}"
            if champion.dataset != challenger.dataset
            else f"{champion.dataset} as well, but a different validation split"
        )
        return PromotionDecision(
            False,
            f"its {accuracy} and the {champion.summary} of the champion, {champion.name}, are not "
            f"of the same validation images: the champion's are of {what}",
        )
    more = challenger.correct - champion.correct
    needed = Fraction(str(margin)) * challenger.validation_images
    figures = (
        f"{accuracy} of the validation images read right, the champion, {champion.name}, "
        f"{champion.summary}: {_more(more)}, and promote.margin ({margin:g}) asks for more than "
        f"{float(needed):g}"
    )
    return PromotionDecision(more > needed, figures)


def _more(images: int) -> str:
    if images == 0:
        return "as many"
    return f"{abs(images):,} {'more' if images > 0 else 'fewer'}"
