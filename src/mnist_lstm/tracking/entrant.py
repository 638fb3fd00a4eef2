"""A model and its accuracy on validation images, as versions of the registered model record it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entrant:
    """A model that is or may become the champion.

    `validation_sha256` is that of the validation images, `validation_accuracy` the fraction of them
    that are read right.
    """

    name: str
    training_id: str
    model_sha256: str
    dataset: str
    validation_sha256: str
    validation_images: int
    validation_accuracy: float

    @property
    def correct(self) -> int:
        """The number of validation images that are read right."""
        return round(self.validation_accuracy * self.validation_images)

    @property
    def summary(self) -> str:
        """The accuracy as a percentage and as a count: `94.00% (188 of 200)`."""
        return f"{self.validation_accuracy:.2%} ({self.correct:,} of {self.validation_images:,})"
