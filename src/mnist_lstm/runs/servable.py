"""A model with all that a server of it needs, in a folder: `mnist-lstm export` writes it.

Reading such a folder needs neither MLflow nor DVC. T rows of D pixels, C classes
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.files import sha256, write_atomically
from mnist_lstm.learning.model import RowLSTM

if TYPE_CHECKING:
    from mnist_lstm.data.sequences import Sequences
    from mnist_lstm.pipeline.result_files import Row
    from mnist_lstm.runs.history import History
    from mnist_lstm.runs.predictor import Predictor

WEIGHTS, ABOUT, PAGE = "model.safetensors", "about.json", "page.html"
NO_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>No page</title>'
    "<p>This model has no page to draw in. POST requests to /predict are answered.</p>\n"
)
UNSURE = 0.9  # an answer with a smaller probability is unsure


@dataclass(frozen=True)
class Usual:
    """What is usual on the test images: mean ink (0–1) and the share of unsure answers.

    Each is None if it is not known.
    """

    ink: float | None = None
    unsure: float | None = None


@dataclass(frozen=True)
class Servable:
    """A model with its data set, the size of its images (T, D), its C classes and its page.

    `source` describes in words which model it is. `page` is HTML.
    """

    model: RowLSTM
    source: str
    dataset: str
    image: tuple[int, int]
    classes: tuple[str, ...]
    usual: Usual
    page: str

    def write(self, folder: Path) -> None:
        """Write the files of the folder. Raises UserError if they cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.model.save(folder / WEIGHTS)
            about = {
                "model_sha256": sha256(folder / WEIGHTS),
                "source": self.source,
                "dataset": self.dataset,
                "image": list(self.image),
                "classes": list(self.classes),
                "usual": asdict(self.usual),
            }
            write_atomically(folder / PAGE, self.page.encode())
            write_atomically(folder / ABOUT, f"{json.dumps(about, indent=2)}\n".encode())
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}; name another folder with --out") from None


def of(history: "History", chosen: "Predictor", note: Callable[[str], object]) -> Servable:
    """What serves a model, with what is known of the test images.

    `note` is called with a line if they are not here, and with one if the page to draw in cannot
    compute the model: the page then only says so. Raises UserError if its weights are not finite.
    """
    from mnist_lstm.runs import demonstration
    from mnist_lstm.views.draw_page import page

    found = demonstration.test_images(history.root, chosen)
    test, known = None, []
    if isinstance(found, str):
        note(f"no examples, and no means to compare with: the test images {found}")
    else:
        test, known = found, demonstration.predictions(history, chosen, found)
    try:
        data = demonstration.data(chosen, 32, test, known)
        shown = page(demonstration.title(chosen), data, served=True)
    except demonstration.Unknown as error:
        note(f"no page to draw in: {error.reason}")
        shown = NO_PAGE
    return Servable(
        chosen.model,
        chosen.source,
        chosen.dataset,
        chosen.image,
        chosen.classes,
        _usual(test, known),
        shown,
    )


def read(folder: Path) -> Servable:
    """Read a folder that `Servable.write` wrote. Raises UserError if it is none."""
    what = "`mnist-lstm export` makes such a folder"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        page = (folder / PAGE).read_text(encoding="utf-8")
        if sha256(folder / WEIGHTS) != about["model_sha256"]:
            raise UserError(f"{folder / WEIGHTS}: not the model that {ABOUT} names; {what}")
        return _servable(RowLSTM.load(folder / WEIGHTS), about, page)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; {what}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder / ABOUT}: damaged ({error}); {what}") from None


def _servable(model: RowLSTM, about: Mapping[str, Any], page: str) -> Servable:
    rows, pixels = map(int, about["image"])
    classes = tuple(map(str, about["classes"]))
    if len(classes) != model.head.out_features:
        raise ValueError(f"{len(classes)} classes are not those of the model")
    usual = Usual(**about["usual"])
    source, dataset = str(about["source"]), str(about["dataset"])
    return Servable(model, source, dataset, (rows, pixels), classes, usual, page)


def _usual(test: "Sequences | None", predictions: Sequence["Row"]) -> Usual:
    ink = None if test is None else float(test.pixels.double().mean()) / 255
    sure = [float(row["probability"]) for row in predictions if "probability" in row]
    unsure = sum(each < UNSURE for each in sure) / len(sure) if sure else None
    return Usual(ink, unsure)
