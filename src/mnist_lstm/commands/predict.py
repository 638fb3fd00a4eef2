"""Classify pictures with a trained model."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import RUN, add_model, chosen_model, in_project, note, read_history

if TYPE_CHECKING:
    import numpy as np

    from mnist_lstm.runs.predictor import Predictor

HELP = f"""\
Print the class of each PNG or JPEG picture, with the probability that the model gives to this
class. A picture may have any size, may be in colour or transparent, dark on light or light on dark.
It is first converted to the form of the images that the model was trained on. For MNIST, the
command finds one digit on its background, scales it into 20 by 20 pixels and centres its mass in 28
by 28 pixels. --show writes the converted pictures. A line on stderr says if several large
things are on a picture, or if what is left is unlike a digit.

The model is the champion of MLflow's registry. If there is no champion, it is the workspace's
model. --run or --model names another model. A line on stderr says which model answers.

{RUN}

Exit code: 0 when all pictures were classified, 1 when some could not be read (a line on stderr says
why, and the others are classified), 2 when there is no such model or the command is wrong."""

BAR = 20  # characters of a bar that stands for probability 1
SHADES = " .:-=+*#%@"
FOLDER = "belief"


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=Path,
        help="a PNG or JPEG file, or a folder that has such files",
    )
    add_model(parser)
    parser.add_argument(
        "--show",
        metavar="DIR",
        type=Path,
        help="write each picture as the model saw it, enlarged, into this folder: NAME.seen.png",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show the model's probabilities after each row, as text and as a picture, "
        f"NAME.belief.png in the folder of --show (default: {FOLDER}/ in the project's folder)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON array. An entry has file, class, probability, probabilities and doubts, "
        "a list of why the picture may be misread; with --explain also rows, the probabilities "
        "after each row. The entry of a picture that could not be read has file and error",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare the pictures, classify them, print the answers."""
    from mnist_lstm.data import photo, picture_file
    from mnist_lstm.pipeline import stage

    root = stage.root()
    history = read_history(root, "predict", mixture=False)
    chosen = chosen_model(history, arguments, "predict")
    form = photo.form_of(chosen.dataset, *chosen.image)
    files, images, doubts, errors = [], [], [], []
    for path in arguments.images:
        try:
            found = picture_file.files_in(path)
        except UserError as error:
            errors.append(_refused(path, error))
            continue
        for file in found:
            try:
                reading = photo.read(file, form)
            except UserError as error:
                errors.append(_refused(file, error))
                continue
            images.append(reading.pixels)
            files.append(file)
            doubts.append(reading.doubts)
            for doubt in reading.doubts:
                note("predict", f"{file}: {doubt}")
    seen = photo.together(images, form)
    beliefs = _beliefs(chosen, seen, after_each_row=arguments.explain)
    names = _names(files)
    if arguments.show:
        for name, image in zip(names, seen, strict=True):
            factor = max(1, 280 // max(image.shape))
            _write(arguments.show / f"{name}.seen.png", photo.enlarged(image, factor))
    if arguments.json:
        answers = [
            _as_json(file, belief, chosen.classes, why, rows=arguments.explain)
            for file, belief, why in zip(files, beliefs, doubts, strict=True)
        ]
        print(json.dumps([*answers, *errors], indent=2))
    else:
        _print(files, seen, beliefs, chosen.classes, explain=arguments.explain)
        if files and not arguments.explain and sys.stdout.isatty():
            note("predict", "next: --explain shows the rows one by one")
    if arguments.explain:
        folder = arguments.show or in_project(root, FOLDER)
        for name, file, image, belief in zip(names, files, seen, beliefs, strict=True):
            _draw(folder / f"{name}.belief.png", file.name, image, belief, chosen.classes)
        if files:
            note("predict", f"pictures: {folder}")
    return 1 if errors else 0


def _refused(path: Path, error: UserError) -> dict[str, str]:
    note("predict", str(error))
    return {"file": str(path), "error": str(error)}


def _beliefs(chosen: "Predictor", images: "np.ndarray", *, after_each_row: bool) -> "np.ndarray":
    """Probabilities after each row, or only after the last one: (N, T, D) -> (N, T or 1, C)."""
    import torch

    from mnist_lstm.learning.evaluation import read_row_by_row
    from mnist_lstm.learning.model import infer

    pixels = torch.from_numpy(images)
    if not len(pixels):
        return images[:, :1]
    if after_each_row:
        logits = read_row_by_row(chosen.model, pixels.split(1000))
    else:
        logits = infer(chosen.model, pixels, 1000)[:, None]
    beliefs: np.ndarray = logits.double().softmax(dim=2).numpy()
    return beliefs


def _names(files: Sequence[Path]) -> list[str]:
    """A unique name for each file, from which its pictures get their names."""
    names: list[str] = []
    for file in files:
        name, number = file.stem, 1
        while name in names:
            number += 1
            name = f"{file.stem}-{number}"
        names.append(name)
    return names


def _write(path: Path, picture: Any) -> None:
    from mnist_lstm.files import write_atomically

    try:
        write_atomically(path, lambda draft: picture.save(draft, "PNG"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another folder with --show") from None


def _as_json(
    file: Path, belief: "np.ndarray", classes: Sequence[str], doubts: Sequence[str], *, rows: bool
) -> dict[str, Any]:
    last = belief[-1]
    answer: dict[str, Any] = {
        "file": str(file),
        "class": classes[last.argmax()],
        "probability": float(last.max()),
        "probabilities": dict(zip(classes, last.tolist(), strict=True)),
        "doubts": list(doubts),
    }
    if rows:
        answer["rows"] = [dict(zip(classes, row.tolist(), strict=True)) for row in belief]
    return answer


def _print(
    files: Sequence[Path],
    images: "np.ndarray",
    beliefs: "np.ndarray",
    classes: Sequence[str],
    *,
    explain: bool,
) -> None:
    from mnist_lstm.views.text_table import table, terminal_width

    if not files:
        return
    rows = [
        [str(file), classes[belief[-1].argmax()], _percent(belief[-1].max())]
        for file, belief in zip(files, beliefs, strict=True)
    ]
    lines = table(rows, terminal_width(), right="  r")
    for line, image, belief in zip(lines, images, beliefs, strict=True):
        print(line)
        if explain:
            print(*_bars(image, belief, classes), "", sep="\n")


def _percent(share: float) -> str:
    """A probability as a percentage, never 100 %."""
    return ">99.99%" if share > 0.99995 else f"{share:.2%}"


def _bars(image: "np.ndarray", belief: "np.ndarray", classes: Sequence[str]) -> list[str]:
    """One line for each row of the image: its pixels and the two most probable classes."""
    wide = max(map(len, classes))
    lines = []
    for number, (pixels, row) in enumerate(zip(image, belief, strict=True), start=1):
        drawn = "".join(SHADES[int(pixel) * len(SHADES) // 256] for pixel in pixels)
        first, second = row.argsort()[::-1][:2]
        bar = "█" * round(row[first] * BAR) + "░" * round(row[second] * BAR)
        lines.append(
            f"  {number:>2} |{drawn}| {classes[first]:<{wide}} {row[first]:>4.0%} "
            f"{bar[: BAR + 1]:<{BAR + 1}} {classes[second]:<{wide}} {row[second]:>4.0%}"
        )
    return lines


def _draw(
    path: Path, title: str, image: "np.ndarray", belief: "np.ndarray", classes: Sequence[str]
) -> None:
    from mnist_lstm.views import figures, pictures

    figure = pictures.belief_of_one(title, image, belief, classes)
    try:
        figures.save(figure, path)
    except OSError as error:
        raise UserError(
            f"{os.path.relpath(path)}: {error.strerror}; name another folder with --show"
        ) from None
