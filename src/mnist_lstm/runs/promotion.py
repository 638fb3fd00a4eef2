"""Which of two models is to be used, by their accuracy on the same validation images alone."""

from dataclasses import dataclass
from fractions import Fraction

from mnist_lstm import UserError
from mnist_lstm.runs.history import History, Result


@dataclass(frozen=True)
class Entrant:
    """A model and how it did on validation images, by which alone it is chosen.

    `validation_sha256` is that of the images, `validation_accuracy` the part of them read right.
    """

    name: str
    training_id: str
    model_sha256: str
    dataset: str
    validation_sha256: str
    validation_images: int
    validation_accuracy: float

    @property
    def right(self) -> int:
        """Images read right."""
        return round(self.validation_accuracy * self.validation_images)

    @staticmethod
    def of(history: History, result: Result) -> "Entrant":
        """That of a result, as its latest evaluation has it.

        Raises UserError where it was not evaluated.
        """
        about = result.about
        metrics = history.metrics(result)
        if "validation" not in metrics:
            raise UserError(
                f"{about['name']} has not been evaluated; `dvc repro` in the workspace that has it "
                "does that, and `mnist-lstm runs` shows which have been"
            )
        return Entrant(
            name=about["name"],
            training_id=about["training_id"],
            model_sha256=about["model_sha256"],
            dataset=about["dataset"],
            validation_sha256=about["data"]["validation"]["sha256"],
            validation_images=about["data"]["validation"]["images"],
            validation_accuracy=metrics["validation"]["accuracy"],
        )


@dataclass(frozen=True)
class Verdict:
    """Whether a challenger is to be the champion, and why or why not, in a line with figures."""

    promotes: bool
    why: str


def judge(challenger: Entrant, champion: Entrant | None, margin: float) -> Verdict:
    """Hold a model against the champion, if there is one.

    It must read more of the same images right, by more than `margin`, a fraction of them. Counted
    in whole images: 0.95 - 0.94 > 0.01 is true of floating-point numbers.
    """
    theirs = shown(challenger)
    if champion is None:
        return Verdict(
            True, f"{theirs} of the validation images read right, and no champion to beat"
        )
    if challenger.validation_sha256 != champion.validation_sha256:
        what = (
            f"{champion.dataset}, not {challenger.dataset}"
            if champion.dataset != challenger.dataset
            else f"{champion.dataset} as well, but a different validation split"
        )
        return Verdict(
            False,
            f"its {theirs} and the {shown(champion)} of the champion, {champion.name}, are not of "
            f"the same validation images: the champion's are of {what}",
        )
    more = challenger.right - champion.right
    needed = Fraction(str(margin)) * challenger.validation_images
    figures = (
        f"{theirs} of the validation images read right, the champion, {champion.name}, "
        f"{shown(champion)}: {_more(more)}, and promote.margin ({margin:g}) asks for more than "
        f"{float(needed):g}"
    )
    return Verdict(more > needed, figures)


def shown(entrant: Entrant) -> str:
    """How an entrant did, as a share and a count."""
    return f"{entrant.validation_accuracy:.2%} ({entrant.right:,} of {entrant.validation_images:,})"


def _more(images: int) -> str:
    if images == 0:
        return "as many"
    return f"{abs(images):,} {'more' if images > 0 else 'fewer'}"
