"""The zygote's programs do the same as the installed ones, and no process outlives the zygote."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import exports
import psutil
import pytest
import torch
import zygote
from matplotlib.figure import Figure
from PIL import Image
from samples import small_model

from mnist_lstm.learning.model import Classifier

SCRIPT = """
import os, sys
print(sys.argv, sys.path[0], os.getcwd(), os.environ["ASKED"], __name__, __file__)
print(sorted(name for name in sys.modules if name.split(".")[0] == "mnist_lstm"))
print("to stderr", file=sys.stderr)
print(sys.stdin.read())
"""
ENDS = {
    "nothing": "",
    "a code": "sys.exit(7)",
    "a line": "sys.exit('what is wrong')",
    "a bug": "raise ValueError('a bug')",
    "a signal": "os.kill(os.getpid(), 9)",
}
# starts what would go on for long, and waits to be killed
LEAVES = """
import subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import zygote
from matplotlib.figure import Figure
from PIL import Image
zygote.start(Path(sys.argv[2]), modules="")
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
warm = subprocess.Popen(
    [zygote.folder_of_programs() / "python", sys.argv[3]], stdout=subprocess.PIPE, text=True
)
print(child.pid, warm.stdout.readline(), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("end", ENDS)
def test_a_script_runs_as_in_a_process_of_its_own(tmp_path: Path, end: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "script.py").write_text(SCRIPT + ENDS[end])
    done = [
        subprocess.run(
            [program, "folder/script.py", "an argument"],
            cwd=tmp_path,
            env=os.environ | {"ASKED": "yes"},
            input="from stdin",
            capture_output=True,
            text=True,
            check=False,
        )
        for program in (sys.executable, zygote.folder_of_programs() / "python")
    ]
    cold, warm = done
    assert (warm.returncode, warm.stdout) == (cold.returncode, cold.stdout)
    assert warm.stderr.splitlines()[-1] == cold.stderr.splitlines()[-1]


ASKS = """
import os, signal, subprocess, sys, time
def tell(number, frame):
    print("told", number, flush=True)
    sys.exit(number)
signal.signal(signal.SIGTERM, tell)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(os.getpid(), child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no zygote")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_fork_and_what_it_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "script.py").write_text(ASKS)
    with subprocess.Popen(
        [zygote.folder_of_programs() / "python", "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        at_work = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(at_work) == 2
        process.send_signal(number)
        told = process.stdout.read()
    stopped = (signal.SIGTERM, f"told {int(number)}\n")
    assert (process.returncode, told) == (
        stopped if number == signal.SIGTERM else (-signal.SIGKILL, "")
    )
    deadline = time.monotonic() + 600  # against a hang; a busy machine may take long
    while any(is_at_work(one) for one in at_work):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no zygote")
def test_nothing_is_left_of_tests_that_are_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(1000)")
    arguments = [Path(__file__).parent, tmp_path / "zygote", script]
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        left = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(left) == 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 600  # against a hang; a busy machine may take long
    while any(is_at_work(one) for one in left):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_at_work(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_the_file_of_a_figure_that_is_not_rendered_depends_on_its_texts() -> None:
    files = []
    for title in ("a title", "another title", "a title"):
        figure = Figure()
        figure.suptitle(title)
        zygote.Blank.savefig(figure, file := io.BytesIO(), format="png")
        files.append(file.getvalue())
        assert Image.open(file).size == (1, 1)
    assert files[0] == files[2] != files[1]


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")
def test_an_export_that_is_kept_gets_the_weights_of_each_model(tmp_path: Path) -> None:
    exported = []

    def export(model: torch.nn.Module, *args: Any, **settings: Any) -> Any:
        exported.append(model)
        return torch.export.export(model, *args, **settings)

    images = torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8)
    for number, settings in enumerate(({}, {}, {"cell": "gru"})):
        torch.manual_seed(number)
        model = Classifier(small_model(**settings)).eval()
        once = exports.exporting_once(export, tmp_path)  # as in another process each time
        program = once(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.testing.assert_close(program.module()(images), model(images))
    assert len(exported) == 2
