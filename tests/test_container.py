"""The container of the server: Containerfile, and what scripts/server.sh installs for it."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from samples import PROJECT, small_model

from mnist_lstm.runs.servable import Servable, Usual

SCRIPT = (PROJECT / "scripts" / "server.sh").read_text()
CONTAINERFILE = (PROJECT / "Containerfile").read_text()
LISTED = set(re.findall(r"(?s)packages='(.*?)'", SCRIPT)[0].split())
FROM_ELSEWHERE = {"torch"}  # from PyTorch's own index
SETTINGS = {"python_version": "3.13", "python_full_version": "3.13.0", "extra": ""}
# packages of the build with CUDA, which the build for processors does without
OF_CUDA = re.compile(r"nvidia-|cuda-|triton")


def needed(package: str) -> set[str]:
    """The packages that a package needs, on Linux, without its extras."""
    return {
        found.name.lower().replace("_", "-")
        for found in map(Requirement, requires(package) or ())
        if (not found.marker or found.marker.evaluate(SETTINGS)) and not OF_CUDA.match(found.name)
    }


def imported(folder: Path) -> set[str]:
    """The packages that the server of an exported model has imported, once it is ready."""
    model = small_model(num_classes=10)
    Servable(model, "", "digits", (8, 8), tuple("0123456789"), Usual(), "").write(folder)
    code = (
        "import json, sys; from pathlib import Path; from mnist_lstm.serving import app; "
        f"app.application(app.read(Path({str(folder)!r}))); "
        "from mnist_lstm.data import photo; import uvicorn.protocols.http.h11_impl; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_script_installs_what_the_server_imports_and_nothing_of_mlflow_and_dvc(
    tmp_path: Path,
) -> None:
    of_module, found = packages_distributions(), imported(tmp_path / "served")
    others = {"mlflow", "dvc", "pydantic", "yaml", "fastapi", "sklearn", "pandas", "matplotlib"}
    assert others & found == set()
    used = {
        package.lower().replace("_", "-")
        for name in found & of_module.keys()
        for package in of_module[name]
    }
    roots = {"numpy", "pillow", "prometheus-client", "safetensors", "scipy", "starlette", "torch"}
    assert roots | {"uvicorn"} <= used
    waiting, closure = roots | {"uvicorn"}, set()
    while waiting:
        package = waiting.pop()
        closure.add(package)
        waiting |= needed(package) - closure
    assert closure == LISTED | FROM_ELSEWHERE


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = [
        path
        for line in re.findall(r"(?m)^COPY (?!--from)(?:--chown=\S+ )?(.*) \S+$", CONTAINERFILE)
        for path in line.split()
    ]
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    for path in copied:
        assert f"!{path}" in ignored
        assert path == "served" or (PROJECT / path).exists()


def test_uv_has_the_version_of_make_env() -> None:
    pinned = r"(?m)pip install .* uv==([\d.]+)(?: \|\||$)"
    (version,) = re.findall(pinned, CONTAINERFILE)
    assert re.findall(pinned, (PROJECT / "scripts" / "env.sh").read_text()) == [version]


def test_it_runs_as_an_ordinary_user() -> None:
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"(?m)^USER [1-9]\d*:[1-9]\d*$", last)
    (entry,) = re.findall(r"(?m)^ENTRYPOINT (.*)$", last)
    assert Path(json.loads(entry)[0]).name == "python"
