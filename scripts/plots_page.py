"""Build .dvc/plots/page.html, the template of `dvc plots show`, with Vega's scripts inside.

Run: python scripts/plots_page.py   (needs npm; run it after a change of the versions or of PAGE)
DVC's own page loads the scripts from a server, so it shows no charts without a network.
"""

import json
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

SCRIPTS = {  # of the generation that DVC's templates are written for, in the order of loading
    "vega": "5.33.1",
    "vega-lite": "5.23.0",
    "vega-embed": "6.29.0",
}
# what these three have inside them
INSIDE = re.compile(
    "vega|d3-|topojson|delaunator|robust-pred|internmap|fast-json-patch|json-stringify|semver|tslib"
)
HERE = Path(__file__).parent.parent / ".dvc" / "plots"
# DVC writes scripts into the page, and Vega makes functions of text: the policy lets both run, and
# nothing load from elsewhere. Pictures lie beside the page; Vega saves a chart as data: or blob:.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
  script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';
  img-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots</title>
<!-- made by scripts/plots_page.py; the scripts' licences are in LICENSES.txt beside it -->
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 24px auto; max-width: 1200px;
       padding: 0 12px; }
body > div { margin: 0 0 32px; vertical-align: top; overflow-x: auto; }
p { margin: 4px 0; white-space: normal; }
body > div > p { font-weight: 600; }
div[style] { border: 0 !important; margin: 0 !important; max-width: 100%; white-space: normal; }
img { width: 560px; max-width: 100%; }
div[style]:only-of-type img { width: 800px; }
svg.marks { max-width: 100%; height: auto; }
</style>
SCRIPTS
<script>
const embed = vegaEmbed;
vegaEmbed = (element, spec) => embed(element, spec, {
  renderer: "svg",
  actions: { export: true, source: false, compiled: false, editor: false },
});
// what the pictures show, in place of their paths
const SHOWS = {
  batch: "Images of a training batch, and their labels",
  belief: "The probabilities of the classes after each row that the model has read",
  confusion: "Actual and predicted classes of the test images",
  curve: "Accuracy during training",
  mistakes: "The misclassified test images with the highest confidence",
  reading: "Accuracy on the test images after each row",
};
document.addEventListener("DOMContentLoaded", () => {
  for (const title of document.querySelectorAll("body > div > p")) {
    const name = /^results\\/evaluate\\/(\\w+)\\.png$/.exec(title.textContent);
    if (!name || !Object.hasOwn(SHOWS, name[1])) continue;
    title.title = title.textContent;
    title.textContent = SHOWS[name[1]];
    for (const picture of title.parentElement.querySelectorAll("img")) picture.alt = SHOWS[name[1]];
  }
});
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        packages = [f"{name}@{version}" for name, version in SCRIPTS.items()]
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
        subprocess.run(command, cwd=folder, check=True)
        modules = Path(folder) / "node_modules"
        HERE.mkdir(exist_ok=True)
        (HERE / "page.html").write_text(PAGE.replace("SCRIPTS", scripts(modules)))
        (HERE / "LICENSES.txt").write_text(licences(modules))


def scripts(modules: Path) -> str:
    """The scripts as HTML elements."""
    elements = []
    for name, version in SCRIPTS.items():
        code = (modules / name / "build" / f"{name}.min.js").read_text()
        code = re.sub(r"\n//# sourceMappingURL=.*", "", code).strip()
        if found := re.search(r"</script|\{scripts\}|\{plot_divs\}|\{refresh_tag\}", code):
            raise SystemExit(f"{name} {version} has {found[0]} in it and cannot stand in the page")
        elements.append(f"<script>/* {name} {version} */\n{code}\n</script>")
    return "\n".join(elements)


def licences(modules: Path) -> str:
    """Each licence once, below the names of its packages."""
    packages = defaultdict(list)
    for folder in sorted(path for path in modules.iterdir() if INSIDE.match(path.name)):
        texts = sorted(folder.glob("LICEN[SC]E*"))
        if not texts:  # of the packages made in Vega's repository, which has vega-lite's licence
            assert json.loads((folder / "package.json").read_text())["license"] == "BSD-3-Clause"
            texts = [modules / "vega-lite" / "LICENSE"]
        packages[texts[0].read_text().strip()].append(folder.name)
    return "\n\n\n".join(f"{', '.join(names)}\n\n{text}" for text, names in packages.items()) + "\n"


if __name__ == "__main__":
    main()
