"""Run a stage of a small project, as dvc would."""

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zygote
from samples import PROJECT, REFERENCE_RECIPE

from mnist_lstm import UserError
from mnist_lstm.pipeline import signals, stage

DVC_YAML = """
stages:
  demo:
    cmd: python src/demo.py out
    params: [seed, model]
    deps: [src/demo.py, data.txt, data]
    outs: [out/result.txt]
"""
DEMO = '''"""Demonstrate a stage."""
from pathlib import Path
from mnist_lstm import UserError
from mnist_lstm.pipeline import stage

def demo(params, out):
    """Put it into `out`."""
    {work}

if __name__ == "__main__":
    stage.run(demo)
'''
WRITE = "out.mkdir(); (out / 'result.txt').write_text(str(params.seed))"


@pytest.fixture
def project(tmp_path: Path, warm_programs: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "src" / "mnist_lstm", folder / "src" / "mnist_lstm")
    shutil.copy(REFERENCE_RECIPE, folder / "params.yaml")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "data.txt").write_text("data")
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "file").touch()
    return folder


def run(
    project: Path, work: str, imports: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the stage; `imports` is run before its function is defined."""
    script = DEMO.format(work=work).replace("\ndef demo", f"\n{imports}\ndef demo")
    (project / "src" / "demo.py").write_text(script)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "DVC_"))}
    return subprocess.run(
        [zygote.folder_of_programs() / "python", "src/demo.py", "out"],
        cwd=project,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


TOO_LITTLE_MEMORY = (
    "demo: there is too little memory; lower model.hidden_size or a batch size: "
    "train.batch_size, train.eval_batch_size, evaluate.batch_size\n"
)


def test_a_stage_gets_params_and_paths(project: Path) -> None:
    done = run(project, WRITE)
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "out" / "result.txt").read_text() == "0"


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ("raise UserError('this: is wrong')", "demo: this: is wrong\n"),
        ("Path('/dev/null/x').read_text()", "demo: /dev/null/x: Not a directory\n"),
        ("bytearray(2**62)", TOO_LITTLE_MEMORY),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", TOO_LITTLE_MEMORY),
    ],
)
def test_a_users_mistake_gets_one_line(project: Path, work: str, line: str) -> None:
    done = run(project, work)
    assert (done.returncode, done.stderr) == (1, line)


def test_a_bug_gets_its_traceback(project: Path) -> None:
    done = run(project, "1 / 0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_bad_params_are_refused_before_any_work(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("batch_size: 128", "batch_size: 0"))
    done = run(project, WRITE)
    assert done.returncode == 1
    assert done.stderr == "demo: params.yaml: train.batch_size must be at least 1, is 0\n"
    assert not (project / "out").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("p = Path('params.yaml'); p.write_text(p.read_text().replace('0.5', '0.7'))", "dropout"),
        ("Path('data.txt').write_text('other')", "data.txt"),
        ("Path('data.txt').unlink()", "data.txt"),
        ("Path('data/deep/file').write_text('other')", "ran: data;"),
        ("Path('data/deep/new').touch()", "ran: data;"),
        ("p = Path('src/demo.py'); p.write_text(p.read_text() + '#')", "src/demo.py"),
    ],
)
def test_inputs_that_change_meanwhile_are_named(project: Path, change: str, named: str) -> None:
    done = run(project, f"{WRITE}; {change}")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: changed while the stage ran: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_changes_while_a_stage_imports_is_noticed_before_the_work(project: Path) -> None:
    edits = "p = Path('src/demo.py'); p.write_text(p.read_text() + '#')"
    done = run(project, WRITE, imports=f"stage.begin(); {edits}")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: changed while the stage ran: src/demo.py;")
    assert not (project / "out").exists()


def test_params_of_other_stages_may_change_meanwhile(project: Path) -> None:
    change = "p = Path('params.yaml'); p.write_text(p.read_text().replace('2000', '3000'))"
    assert run(project, f"{WRITE}; {change}").returncode == 0


def test_code_of_another_workspace_is_refused(project: Path) -> None:
    other = PROJECT / "src"
    done = run(project, WRITE, PYTHONSAFEPATH="1", PYTHONPATH=str(other))
    assert done.returncode == 1
    assert f"mnist_lstm comes from {other / 'mnist_lstm'}" in done.stderr
    assert not (project / "out").exists()


def test_help_says_what_a_stage_does(project: Path) -> None:
    (project / "src" / "demo.py").write_text(DEMO.format(work=WRITE))
    done = subprocess.run(
        [sys.executable, "src/demo.py", "--help"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Demonstrate a stage." in done.stdout
    assert "Put it into `out`." in done.stdout


def test_a_line_arrives_when_it_is_printed(project: Path) -> None:
    (project / "src" / "demo.py").write_text(
        DEMO.format(work="print('at work'); Path('/dev/stdin').read_text()")
    )
    ours = ("PYTHONPATH", "PYTHONUNBUFFERED")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    with subprocess.Popen(
        [sys.executable, "src/demo.py", "out"],
        cwd=project,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        arrived, _, _ = select.select([running.stdout], [], [], 30)  # seconds
        running.communicate()
    assert arrived
    assert running.returncode == 0


def test_the_root_is_dvcs_or_the_nearest_above(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "src" / "mnist_lstm")
    assert stage.root() == project
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert stage.root() == Path("/elsewhere")
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=r"no dvc\.yaml here or above"):
        stage.root()


def test_threads_sleep_in_a_temporary_copy(project: Path) -> None:
    begin = "from mnist_lstm.pipeline import company\nstage.begin()"
    work = "out.mkdir(); (out / 'result.txt').write_text(str(company.wait_policy()))"

    def policy(**environment: str) -> str:
        shutil.rmtree(project / "out", ignore_errors=True)
        done = run(project, work, begin, OMP_NUM_THREADS="2", **environment)
        assert done.returncode == 0, done.stderr
        return (project / "out" / "result.txt").read_text()

    assert policy(DVC_ROOT=str(project.parent)) == "OMP_WAIT_POLICY=PASSIVE"
    chosen = {"OMP_WAIT_POLICY": "ACTIVE"}
    assert policy(DVC_ROOT=str(project.parent), **chosen) == "OMP_WAIT_POLICY=ACTIVE"


@pytest.mark.parametrize(("is_at_work", "restored"), [(True, []), (False, ["demo"])])
def test_a_stage_without_its_dvc_restores_where_no_other_dvc_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_at_work: bool, restored: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signals, "orphaned", lambda: True)
    told = list[str]()
    monkeypatch.setattr(stage, "restore_outputs", told.append)
    folder = tmp_path / ".dvc" / "tmp"
    folder.mkdir(parents=True)
    process = os.getpid() if is_at_work else 2**31 - 1
    noted = {"write": {"out": {"pid": process, "cmd": "dvc repro"}}, "read": {}}
    (folder / "rwlock").write_text(json.dumps(noted))
    hint = stage._restored("demo")
    assert told == restored
    assert hint.startswith(" (`dvc checkout` and ") != bool(restored)
