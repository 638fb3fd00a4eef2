"""Take docs/draw.png, a picture of the page of `mnist-lstm draw`, in Chromium.

Run: mnist-lstm draw && python scripts/draw_picture.py draw.html docs/draw.png
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = "1280,1025"  # down to the end of the examples
COLOURS = 255  # the page has few, and the file stays small


def main(page: str, picture: str) -> None:
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        sys.exit("draw_picture: there is no chromium on this machine")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        subprocess.run(
            [
                *(chromium, *options, f"--user-data-dir={folder}/profile"),
                *(f"--window-size={SIZE}", f"--screenshot={shot}"),
                "--virtual-time-budget=1100",  # milliseconds: it is in the middle of the image
                Path(page).resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
        Image.open(shot).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
