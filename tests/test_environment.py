"""`make env` chooses a build of PyTorch; uv is replaced by a program that notes its arguments."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click import Context
from mlflow import cli
from samples import PROJECT

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="elsewhere there is one build of PyTorch"
)

UV = """#!/bin/sh
echo "$@" >>calls
[ "$1 $2" != "pip sync" ] || cat .venv/without-torch.txt >synced 2>/dev/null
case "$*" in *--torch-backend*)
    [ "$(cat index-fails)" = 0 ] || echo "error: no route to host" >&2
    exit $(cat index-fails) ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an older environment; PyTorch's index can be reached."""
    for name in ("requirements.lock", "pyproject.toml", "scripts/env.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in {"uv": UV, "python": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "index-fails").write_text("0")
    _made(tmp_path, "older lock", "cuda")
    return tmp_path


def test_the_build_for_processors_comes_from_an_index_of_its_own(folder: Path) -> None:
    _make_env(folder, TORCH="cpu")
    calls = (folder / "calls").read_text()
    assert "--require-hashes .venv/without-torch.txt" in calls
    assert "--require-hashes requirements.lock" not in calls
    names = {line.partition("==")[0] for line in (folder / "synced").read_text().splitlines()}
    assert {"numpy", "mlflow", "dvc", "nvidia-ml-py"} <= names
    assert not names & {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"}
    versions = [
        line.split()[0]
        for line in (folder / "requirements.lock").read_text().splitlines()
        if line.startswith(("torch==", "torchvision=="))
    ]
    assert len(versions) == 2
    assert f"--torch-backend cpu {' '.join(versions)} --python" in calls
    assert _choice(folder) == "cpu"


def test_an_arm_processor_under_linux_has_the_choice_too(folder: Path) -> None:
    stubs = folder / "stubs"
    stubs.mkdir()
    (stubs / "uname").write_text("#!/bin/sh\n[ $# = 0 ] && echo Linux || echo Linux aarch64\n")
    (stubs / "uname").chmod(0o755)
    _make_env(folder, TORCH="cpu", PATH=f"{stubs}:{os.environ['PATH']}")
    assert _choice(folder) == "cpu"


def test_of_uvs_lines_those_stay_that_a_user_waits_for(folder: Path) -> None:
    lines = (
        " + numpy==2",
        "Downloading numpy (16.1MiB)",
        "Downloading torch (821.2MiB)",
        "error: no",
    )
    quoted = " ".join(f"'{line}'" for line in lines)
    (folder / ".venv" / "bin" / "uv").write_text(
        f'#!/bin/sh\n[ "$2" != sync ] || printf "%s\\n" {quoted}\n'
    )
    printed = _make_env(folder, TORCH="cuda").splitlines()
    assert printed[-2:] == ["make env: Downloading torch (821.2MiB)", "make env: error: no"]
    assert not [line for line in printed if "numpy" in line]


def test_without_that_index_cuda_is_installed_and_a_line_says_why(folder: Path) -> None:
    (folder / "index-fails").write_text("2")
    printed = _make_env(folder, TORCH="cpu").splitlines()
    assert "make env: error: no route to host" in printed
    assert "make env: the build with CUDA takes its place" in printed
    assert "requirements.lock --python" in (folder / "calls").read_text()
    assert _choice(folder) == "cuda"


def test_the_choice_is_kept_until_another_is_asked_for(folder: Path) -> None:
    _make_env(folder, TORCH="cpu")
    (folder / "calls").unlink()
    _make_env(folder)
    assert not (folder / "calls").exists()
    assert _choice(folder) == "cpu"
    _make_env(folder, TORCH="cuda")
    # both builds have one version: without this, the build for processors would stay
    assert "--reinstall-package torch " in (folder / "calls").read_text()
    assert _choice(folder) == "cuda"


def test_nothing_is_downloaded_again_for_a_new_lock(folder: Path) -> None:
    _make_env(folder, TORCH="cuda")
    assert "pip sync --require-hashes .venv/requirements.lock" in (folder / "calls").read_text()
    assert "--reinstall" not in (folder / "calls").read_text()


def test_extras_are_kept_until_others_are_asked_for(folder: Path) -> None:
    theirs = {"team": {"dvc-s3", "s3fs", "botocore", "psycopg"}, "server": {"boto3", "flask-wtf"}}
    both = theirs["team"] | theirs["server"]
    for given, there in (
        ({"EXTRAS": "team"}, theirs["team"]),
        ({}, theirs["team"]),
        ({"EXTRAS": "server team"}, both),
        ({"EXTRAS": ""}, set()),
    ):
        (folder / "calls").unlink(missing_ok=True)
        _make_env(folder, TORCH="cpu", **given)
        names = {line.partition("==")[0] for line in (folder / "synced").read_text().splitlines()}
        assert names & both == there
        assert {"mlflow", "dvc"} <= names
        assert (folder / "calls").exists() == bool(given or not there)
    kept = (folder / ".venv" / "made-from").read_text()
    assert kept.splitlines()[3:] == ["cpu", ""]


def test_a_line_says_which_extra_another_choice_removes(folder: Path) -> None:
    _make_env(folder, TORCH="cpu", EXTRAS="team")
    printed = _make_env(folder, EXTRAS="server").splitlines()
    line = 'make env: EXTRAS=server removes team; to have both: make env EXTRAS="team server"'
    assert line in printed
    for extras in ("server team", ""):
        assert " removes " not in _make_env(folder, EXTRAS=extras)


def test_an_extra_that_there_is_not_is_refused(folder: Path) -> None:
    done = subprocess.run(
        ("sh", "scripts/env.sh"),
        cwd=folder,
        env=os.environ | {"EXTRAS": "team tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "EXTRAS=tests is neither team nor server" in done.stderr


def test_a_make_that_was_killed_does_not_stop_the_next_one(folder: Path) -> None:
    """In a new container, the next one has the process number of the killed one."""
    for maker in ("$$", str(2**22 + 1)):  # its own, and one that no process has
        _made(folder, "older lock", "cuda")
        script = f"unset TORCH EXTRAS; echo {maker} >.venv/making; exec sh scripts/env.sh"
        command = ["sh", "-c", script]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert "another make" not in done.stderr
        assert not (folder / ".venv" / "making").exists()


def test_what_took_long_is_not_deleted_unasked(folder: Path) -> None:
    shutil.copy(PROJECT / "scripts" / "clean.sh", folder / "scripts")
    (folder / "results").mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for name in (".checkpoints", "mlruns", "server", "data/raw", "belief"):
        (folder / name).mkdir(parents=True)
    command = ["sh", "scripts/clean.sh"]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("make clean: kept ") == 3
    left = {path.name for path in folder.iterdir()}
    assert {".checkpoints", "mlruns", "server"} <= left
    assert left.isdisjoint({".venv", "belief"})
    assert not (folder / "data" / "raw").exists()


def test_an_extra_names_no_package_that_everybody_needs() -> None:
    """So that it cannot move the version of one."""
    lock = (PROJECT / "requirements.lock").read_text()
    sections = [
        set(re.findall(r"^([a-z0-9][\w.-]*)==", section, re.MULTILINE))
        for section in lock.split("\n# extras: ")
    ]
    assert all(sections)
    assert sum(map(len, sections)) == len(set.union(*sections))
    assert re.findall("^# extras: (.*)$", lock, re.MULTILINE) == ["server", "server team", "team"]
    assert "://" not in lock


def _made(folder: Path, lock: str, build: str) -> None:
    lines = [str(folder.resolve()), lock, "project", build]
    (folder / ".venv" / "made-from").write_text("\n".join(lines) + "\n")


def _make_env(folder: Path, **environment: str) -> str:
    chosen = ("TORCH", "EXTRAS")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    command = ("sh", "scripts/env.sh")
    done = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _choice(folder: Path) -> str:
    return (folder / ".venv" / "made-from").read_text().splitlines()[3]


def test_compose_yaml_starts_three_services_of_pinned_versions() -> None:
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    assert services.keys() == {"database", "storage", "mlflow"}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        if image := service.get("image"):
            assert re.fullmatch(r"docker\.io/\w+/\w+:[\w.-]*\d[\w.-]*", image)
        secrets = [v for k, v in service["environment"].items() if "PASSWORD" in k or "SECRET" in k]
        assert secrets
        assert all(secret.endswith(":?write it into .env}") for secret in secrets)
    built = services["mlflow"]["build"]["dockerfile_inline"]
    pinned = re.findall(r'"([\w-]+)(?:\[\w+\])?==([\d.]+)"', built)
    assert [name for name, _ in pinned] == ["mlflow", "psycopg", "boto3"]
    lock = (PROJECT / "requirements.lock").read_text()
    for name, version in pinned:
        assert f"\n{name}=={version} " in lock
    program, command, *options = services["mlflow"]["command"]
    assert (program, command) == ("mlflow", "server")
    parsed, _, _ = cli.server.make_parser(Context(cli.server)).parse_args(list(options))
    assert parsed["artifacts_destination"] == "s3://mlflow/artifacts"
    assert parsed["host"] == "0.0.0.0"
