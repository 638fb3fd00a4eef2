"""A candidate for the champion: a model and its validation accuracy, as its version records it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "row-lstm"  # the name of the registered model


@dataclass(frozen=True)
class Entrant:
    """A model that is the champion or may become it.

    `validation_sha256` is the digest of the validation images; `validation_accuracy` is the
    fraction of them that the model classifies correctly.
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
        """The number of validation images that the model classifies correctly."""
        return round(self.validation_accuracy * self.validation_images)

    @property
    def summary(self) -> str:
        """The accuracy as a percentage and as a count: `94.00% (188 of 200)`."""
        return f"{self.validation_accuracy:.2%} ({self.correct:,} of {self.validation_images:,})"


@dataclass(frozen=True)
class Decision:
    """A `promotion`, or the `return` to a former champion: the champion from then on, and a note.

    `note` says when (`at`, ISO 8601), by whom and why.
    """

    what: str
    entrant: Entrant
    note: Mapping[str, Any]
