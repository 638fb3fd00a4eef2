import itertools
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bad_params import EXECUTES, KINDS, REFERENCE, Bad, put
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from mutations import fuzz
from pydantic import ValidationError
from samples import PROJECT, RECIPES, REFERENCE_RECIPE

from mnist_lstm import UserError
from mnist_lstm.pipeline.params import (
    Params,
    flatten,
    load,
    short_name,
    value_at,
    values_of,
    with_values,
)
from mnist_lstm.pipeline.params_mistake import explain


def edited(tmp_path: Path, old: str, new: str) -> Path:
    assert old in REFERENCE
    path = tmp_path / "params.yaml"
    path.write_text(REFERENCE.replace(old, new, 1))
    return path


def test_the_reference_recipe_is_the_reference() -> None:
    params = load(REFERENCE_RECIPE)
    assert (params.model.hidden_size, params.model.num_layers, params.model.dropout) == (
        256,
        2,
        0.5,
    )
    assert (params.train.steps, params.train.batch_size, params.train.eval_every) == (2000, 128, 50)
    assert params.train.learning_rate == 0.001
    assert params.preprocess.validation_size == 5000
    assert params.preprocess.split_seed is None


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipes_are_valid_and_whole(recipe: Path) -> None:
    load(recipe)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 128", "batch_size: 0", "train.batch_size must be at least 1, is 0"),
        ("steps: 2000", "steps: 2.5", "train.steps must be a whole number, is 2.5"),
        ("steps: 2000", "steps: true", "train.steps must be a whole number, is true (true/false)"),
        (
            "keep_best: false",
            "keep_best: no",
            "train.keep_best must be true or false, is 'no' (text)",
        ),
        ("steps: 2000", "steps: [1]", "train.steps must be a whole number, is a list"),
        ("steps: 2000", "steps:", "train.steps must be a whole number, is nothing"),
        (
            "steps: 2000",
            "stepz: 2000",
            "train.stepz is not a known key; did you mean train.steps? (and 1 more)",
        ),
        (
            "learning_rate: 0.001",
            "learning_rate: 1e-3",
            "train.learning_rate must be a number, is '1e-3' (text); write 0.001",
        ),
        (
            "learning_rate: 0.001",
            "learning_rate: 0,002",
            "train.learning_rate must be a number, is '0,002' (text); write a decimal point, not a "
            "comma: 0.002",
        ),
        (
            "precision: auto",
            "precision: bfloat",
            "train.precision must be 'auto', 'bfloat16' or 'float32', is 'bfloat' (text); did you "
            "mean bfloat16?",
        ),
        (
            "dataset: mnist",
            "dataset: MNSIT",
            "fetch.dataset must be one of mnist, fashion-mnist, kmnist, digits, own, is 'MNSIT'; "
            "did you mean mnist?",
        ),
        (
            "learning_rate: 0.001",
            "learning_rate: true",
            "train.learning_rate must be a number, is true (true/false)",
        ),
        ("learning_rate: 0.001", "learning_rate: -1", "train.learning_rate must be above 0, is -1"),
        (
            "learning_rate: 0.001",
            "learning_rate: 1e3000000",
            "train.learning_rate must be a number, is '1e3000000' (text)",
        ),
        (
            "learning_rate: 0.001",
            "lr: 0.001",
            "train.lr is not a known key; known keys here: steps, batch_size, learning_rate, ",
        ),
        ("steps: 2000", "steps: 2000\n  dropout: 0", "train.dropout is not a known key; did you "),
        (
            "seed: 0",
            "seed: 0\ntrain.steps: 9",
            "train.steps must be in its section: write `train:`, and below it `steps`",
        ),
        ("seed: 0", "seed: 0\n1: 2", "1 is not a known key; known keys here: seed, fetch, "),
        (
            "learning_rate: 0.001",
            "learning_rate: .nan",
            "train.learning_rate must be finite, is nan",
        ),
        (
            "learning_rate: 0.001",
            "learning_rate: .inf",
            "train.learning_rate must be finite, is inf",
        ),
        ("dropout: 0.5", "dropout: 1.0", "model.dropout must be below 1, is 1.0"),
        ("dropout: 0.5", "dropout: 0.5\n  units: 3", "model.units is not a known key; known keys "),
        (
            "hidden_size: 256",
            "hidden_size: 256\n  hidden_sise: 256",
            "model.hidden_sise is not a known key; did you mean model.hidden_size?",
        ),
        ("seed: 0", "seed: -1", "seed must be at least 0, is -1"),
        ("seed: 0", "sed: 0", "sed is not a known key; did you mean seed? (and 1 more)"),
        ("seed: 0", "", "seed is missing"),
        (
            "seed: 0",
            "seed: 0\nseed: 1",
            "line 5, column 1: seed: occurs twice in the section",
        ),
        (
            "implementation: fused",
            "implementation: fast",
            "model.implementation must be 'fused' or 'unrolled', is 'fast' (text)",
        ),
        ("window: 1", "window: 4", "model.window must be 1, 3, 5 or 7, is 4"),
        ("window: 1", "window: true", "model.window must be 1, 3, 5 or 7, is true (true/false)"),
        ("window: 1", "window: 1.0", "model.window must be 1, 3, 5 or 7, is 1.0"),
        (
            "device: auto",
            "device: gpu",
            "train.device must be auto, cpu, cuda, cuda:N or mps, is 'gpu' (text)",
        ),
        (
            "dataset: mnist",
            "dataset: imagenet",
            "fetch.dataset must be one of mnist, fashion-mnist, kmnist, digits, own, is 'imagenet'",
        ),
        (
            "validation_size: 5000",
            "validation_size: 60000",
            "preprocess.validation_size must leave images to train on: it is 60000, and "
            "fetch.dataset mnist has 60000 training images",
        ),
        (
            "batch_size: 128",
            "batch_size: 55001",
            "train.batch_size must be at most the 55000 images that mnist has left to train on, "
            "is 55001",
        ),
        ("fetch:\n  dataset: mnist", "fetch: 3", "fetch must be a section (keys and values), is 3"),
        (
            "seed: 0",
            "seed: !!python/object/apply:os.getcwd []",
            "line 4, column 7: seed: has the YAML tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'; write the value alone",
        ),
        ("seed: 0", "seed: [", "line 7, column 10: seed: while parsing a flow sequence, expected "),
        ("seed: 0", "? {a: 1}\n: 2\nseed: 0", "line 4, column 3: "),
        ("seed: 0", "seed: 0777", "seed must be a whole number, is '0777' (text); write 777"),
        ("seed: 0", "seed: 1:30", "seed must be a whole number, is '1:30' (text)"),
        ("seed: 0", 'seed: 0\n"a\\nb": 1', r"'a\nb' is not a known key; known keys here: seed, "),
        ("seed: 0", 'seed: 0\n"\\ud800": 1', r"a key must be Unicode text, is '\ud800' (text)"),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = edited(tmp_path, old, new)
    with pytest.raises(UserError) as error:
        load(path)
    assert f"{path}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_are_checked_where_the_images_are_counted(tmp_path: Path) -> None:
    params = load(edited(tmp_path, "dataset: mnist", "dataset: own"))  # of which none is known yet
    assert params.train_images_of(5001) == 1
    with pytest.raises(UserError, match=r"preprocess\.validation_size must leave .* it is 5000"):
        params.train_images_of(5000)
    few = load(edited(tmp_path, "train_size: null", "train_size: 200"), {"fetch.dataset": "own"})
    assert few.train_images_of(5200) == few.train_images_of(60_000) == 200
    with pytest.raises(UserError, match=r"preprocess\.train_size must be at most the 199 images"):
        few.train_images_of(5199)


def test_changes_are_made_before_the_check() -> None:
    changed = load(REFERENCE_RECIPE, {"train.steps": 100, "preprocess.split_seed": 3, "seed": 7})
    assert (changed.train.steps, changed.preprocess.split_seed, changed.seed) == (100, 3, 7)
    assert changed.train.batch_size == load(REFERENCE_RECIPE).train.batch_size
    for key, value, said in (
        ("train.stepz", 100, "train.stepz is not a known key; did you mean train.steps?"),
        ("tran.steps", 100, "tran is not a known key; did you mean train?"),
        ("train.steps", 0, "train.steps must be at least 1, is 0"),
        ("seed.of", 1, "seed must be a whole number"),
    ):
        with pytest.raises(UserError) as error:
            load(REFERENCE_RECIPE, {key: value})
        assert said in str(error.value), key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have sections, is nothing"),
        (b"- 1\n", "must have sections, is a list"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"seed: \x00", "not readable as YAML"),
        (None, "no such file; `git checkout"),
    ],
)
def test_a_file_that_is_not_a_params_yaml_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_keys_and_of_sections(tmp_path: Path) -> None:
    path = edited(tmp_path, "steps: 2000", "steps: 1e-3")  # which is no valid number of steps
    assert values_of(path, ["train.steps", "seed", "train.nothing", "seed.deeper"]) == {
        "train.steps": "1e-3",
        "seed": 0,
        "train.nothing": None,
        "seed.deeper": None,
    }
    assert values_of(path, ["fetch"]) == {"fetch": {"dataset": "mnist"}}


@pytest.mark.parametrize("kind", KINDS)
def test_generated_mistakes_get_one_line_that_names_the_key(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, refused = Path("params.yaml"), set[str | bytes]()

    @fuzz(cases=20)
    @given(KINDS[kind])
    def check(bad: Bad) -> None:
        content, named = bad
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError) as error:
            load(path)
        line = str(error.value)
        assert line.startswith("params.yaml: ")
        assert line.isprintable()  # so there is no line break in it
        assert len(line) < 300
        assert named in line
        assert list(Path().iterdir()) == [path]
        refused.add(content)

    check()
    assert len(refused) >= 15


@pytest.mark.parametrize("tag", EXECUTES)
def test_the_tags_execute_code_in_an_unsafe_reader(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else that nothing is there after a refusal would say nothing."""
    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load(tag.format(it="executed"))
    assert Path("executed").exists()


SLOW = {"torch", "mlflow", "dvc", "matplotlib", "numpy", "sklearn"}
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("fetch", "fetch.dataset", EXECUTES[1].format(it="executed")),
        ("fetch", "evaluate.batch_size", "0"),
        ("preprocess", "model.hidden_size", "*nothing"),
        ("train", "train.steps", "0777"),
    ],
)
def test_a_stage_refuses_before_anything_is_written(
    tmp_path: Path, stage: str, key: str, value: str
) -> None:
    (tmp_path / "params.yaml").write_text(put(key, value))
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    _, script, *paths = shlex.split(STAGES[stage]["cmd"])
    command = [sys.executable, PROJECT / script, *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{stage}: params.yaml: ")
    assert key in line
    assert {path.name for path in tmp_path.iterdir()} == {"dvc.yaml", "params.yaml"}


@pytest.mark.parametrize("asked", ["help", "wrong params.yaml"])
def test_a_stage_answers_before_it_imports_what_takes_seconds(tmp_path: Path, asked: str) -> None:
    """One process starts all stages. What one has imported, it would tell of the next ones too."""
    (tmp_path / "params.yaml").write_text(put("train.steps", "0"))
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    commands = []
    for stage in STAGES:
        _, script, *paths = shlex.split(STAGES[stage]["cmd"])
        commands.append([str(PROJECT / script), *(["--help"] if asked == "help" else paths)])
    code = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(PROJECT / 'src')!r})\n"
        f"for sys.argv in {commands}:\n"
        "    try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit as end: print(end.code)\n"
        f"    print(sorted({SLOW} & set(sys.modules)), end='\\0')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for stage, printed in zip(STAGES, done.stdout.removesuffix("\0").split("\0"), strict=True):
        *_, told, slow = printed.splitlines()
        assert slow == "[]", stage
        if asked == "help":
            assert told == "0"
            assert printed.startswith(f"usage: {stage}.py [-h] ")
        else:
            assert told == f"{stage}: params.yaml: train.steps must be at least 1, is 0"


WORDS = "0o17 0x1F 0b11 1:30 1:30.5 08 yes no on off true TRUE null Null ~ .inf -.Inf .NAN nan inf"
SHORT = ("".join(text) for size in range(1, 5) for text in itertools.product("01_.e-", repeat=size))


def test_a_number_is_the_one_that_dvc_records(tmp_path: Path) -> None:
    path, numbers = tmp_path / "params.yaml", dict[str, tuple[str, object]]()
    for text in [*WORDS.split(), *SHORT]:
        path.write_text(f"steps: {text}\n")
        try:
            ours = values_of(path, ["steps"])["steps"]
        except UserError:
            continue
        if not isinstance(ours, str):  # which is taken for no number
            numbers[f"key{len(numbers)}"] = (text, ours)
    path.write_text("".join(f"{key}: {text}\n" for key, (text, _) in numbers.items()))
    theirs = parse_yaml(path.read_text(), path)
    for key, (text, ours) in numbers.items():
        assert repr(ours) == repr(theirs[key]), text
    assert len(numbers) > 100


def test_a_number_is_read_as_dvc_writes_it(tmp_path: Path) -> None:
    """`dvc exp run --set-param` writes 0.00001 as 1e-05."""
    path = tmp_path / "params.yaml"
    shutil.copy(REFERENCE_RECIPE, path)
    small = {"train.learning_rate": 0.00001, "train.weight_decay": 2e-10, "train.clip_norm": 1.5e-5}
    apply_overrides(path, [f"{key}={value}" for key, value in small.items()])
    assert "learning_rate: 1e-05" in path.read_text()
    assert load(path) == load(REFERENCE_RECIPE, small)


def test_flatten_joins_the_keys_of_a_tree() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}
    assert flatten({"b": {"d": {"e": 3}}}, "/") == {"b/d/e": 3}


def test_values_at_dotted_keys() -> None:
    tree = {"a": 1, "b": {"c": 2}}
    assert [value_at(tree, key) for key in ("a", "b.c", "b.d", "a.b", "d")] == [
        1,
        2,
        None,
        None,
        None,
    ]
    assert with_values(tree, {"b.c": 3, "b.d.e": 4, "a.f": 5, "g": 6}) == {
        "a": {"f": 5},
        "b": {"c": 3, "d": {"e": 4}},
        "g": 6,
    }
    assert tree == {"a": 1, "b": {"c": 2}}
    assert [short_name(key) for key in ("seed", "train.steps")] == ["seed", "steps"]


def test_a_value_that_is_endless_as_text_is_refused_at_once() -> None:
    """A few aliases, each a list of the one before, are 10^12 values."""
    value: object = ["x"]
    for _ in range(12):
        value = [value] * 10
    tree = yaml.safe_load(REFERENCE)
    changed = with_values(tree, {"model.cell": value})
    with pytest.raises(ValidationError) as error:
        Params.model_validate(changed)
    (first,) = error.value.errors(include_url=False)
    assert explain(first, {}) == "model.cell must be 'lstm', 'gru' or 'rnn', is a list"


def test_marks_of_a_merge_are_named(tmp_path: Path) -> None:
    path = edited(tmp_path, "seed: 0 ", "<<<<<<< HEAD\nseed: 0\n=======\nseed: 1\n>>>>>>> theirs\n")
    with pytest.raises(UserError, match=r"params\.yaml: has the marks of an unresolved merge$"):
        load(path)
