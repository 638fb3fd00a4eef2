"""Draw the README's pictures of a terminal and of MLflow, from real runs.

Run: python scripts/readme_pictures.py   (needs Chromium; takes some minutes)

Trains recipes/quick.yaml three times, with other learning rates, in a clone of HEAD in a temporary
folder, which has an MLflow store of its own. Writes docs/terminal.svg and docs/mlflow.png.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
RATES = ("0.005", "0.01", "0.001")  # the first is the recipe's own
LINES = 6  # of the training's lines
SIZE = (1814, 880)  # of the page, in pixels
ASSISTANT = 464  # pixels at the right, which MLflow's assistant takes
CHARACTER, LINE = 7.83, 18  # of the terminal, in pixels; 13 px monospace
# a browser without a screen has no mouse, and MLflow's charts then show their tools
MOUSE = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    """Train, look, write both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "mnist-lstm"
        run(PROJECT, "git", "clone", "--quiet", str(PROJECT), str(clone))
        shutil.copy(clone / "recipes" / "quick.yaml", clone / "params.yaml")
        commit(clone, "the recipe, from which the names of the runs say what differs")
        shown = []
        for number, rate in enumerate(RATES):
            text = (clone / "params.yaml").read_text()
            text = re.sub(r"(?m)^(  learning_rate:) \S+", rf"\1 {rate}", text)
            (clone / "params.yaml").write_text(text)
            print(f"training with learning_rate {rate} …", flush=True)
            printed = run(clone, "dvc", "repro")
            if number == 0:  # this run is what the second is compared with
                commit(clone, "its results")
            if number == 1:
                shown = ["$ dvc repro", *of_training(printed), ""]
                shown += ["$ dvc params diff", *run(clone, "dvc", "params", "diff"), ""]
                shown += ["$ dvc metrics diff", *run(clone, "dvc", "metrics", "diff")]
        (PROJECT / "docs" / "terminal.svg").write_text(terminal(shown))
        photograph_mlflow(clone, PROJECT / "docs" / "mlflow.png")


def commit(folder: Path, message: str) -> None:
    """Commit all changes."""
    who = ("-c", "user.name=n", "-c", "user.email=e")
    run(folder, "git", *who, "commit", "--quiet", "--all", "--message", message)


def run(folder: Path, *command: str) -> list[str]:
    """Run a command of the project's environment; returns the lines that it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()


def of_training(printed: Sequence[str]) -> list[str]:
    """The first line of the training, its last ones, and what evaluate says of it."""
    start = next(i for i, line in enumerate(printed) if " steps of " in line)
    steps = [line for line in printed if line.startswith("Iter")]
    ends = [line for line in printed if "images wrong" in line]
    return [printed[start], *steps[:2], "…", *steps[2 - LINES :], *ends]


def terminal(lines: Sequence[str]) -> str:
    """The lines as an SVG that looks like a terminal."""
    width = round(max(map(len, lines)) * CHARACTER) + 32
    height = len(lines) * LINE + 28
    texts = "\n".join(
        f'<text x="16" y="{28 + LINE * i}" class="{_kind(line)}">{escape(line)}</text>'
        for i, line in enumerate(lines)
        if line
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
 width="{width}" height="{height}" role="img">
<title>A training's lines, and the metrics before and after a change</title>
<style>
text {{ font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d8dee9;
       white-space: pre; }}
.typed {{ fill: #8fbcbb; font-weight: bold; }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#20242c"/>
{texts}
</svg>
"""


def _kind(line: str) -> str:
    return "typed" if line.startswith("$ ") else "printed"


def photograph_mlflow(folder: Path, picture: Path) -> None:
    """Start `make ui`'s server, and take a picture of the page whose address it prints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise SystemExit("no Chromium here: docs/mlflow.png is not made")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    command = [sys.executable, "scripts/ui.py", port]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as ui:
        try:
            assert ui.stdout
            address = next(
                found[0] for line in ui.stdout if (found := re.search("http://.*", line))
            )
            subprocess.run(
                [
                    browser,
                    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                    f"--user-data-dir={folder / 'profile'}",
                    f"--blink-settings={MOUSE}",
                    f"--window-size={SIZE[0]},{SIZE[1]}",
                    "--virtual-time-budget=60000",  # milliseconds, which pass when nothing is due
                    f"--screenshot={picture}",
                    address,
                ],
                check=True,
                capture_output=True,
                timeout=300,
            )
        finally:
            ui.terminate()
    with Image.open(picture) as page:
        page.crop((0, 0, SIZE[0] - ASSISTANT, SIZE[1])).save(picture, optimize=True)


if __name__ == "__main__":
    main()
