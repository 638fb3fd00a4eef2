"""The name of a run in MLflow: the parameters in which it differs from the committed recipe."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mnist_lstm import UserError, git
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.pipeline.params import assignments, completed, flatten
from mnist_lstm.pipeline.result_files import RunRecord

LONGEST = 60  # characters; a longer name ends with the number of parameters that are left out


def run_name(root: Path, about: RunRecord) -> str:
    """What a training changed, such as `hidden_size=128, learning_rate=0.002`.

    The committed recipe is params.yaml in the commit that the training recorded, so that the name
    stays the same whatever is committed later. If nothing differs, or if the repository in `root`
    does not have that commit, the name is that of the record. That name comes first if not all
    parameters fit: those that are left out may be what tells two runs apart.
    """
    recipe = _recipe(root, about.commit) if about.commit else {}
    params = flatten(about.params)
    differs = {key: value for key, value in params.items() if recipe.get(key, ...) != value}
    if not recipe or not differs:
        return about.name
    first, *others = assignments(differs)
    whole = ", ".join([first, *others])
    return whole if len(whole) <= LONGEST else joined([f"{about.name}: {first}", *others])


def joined(parts: list[str]) -> str:
    """The parts, as many as fit into LONGEST characters, and how many more there are."""
    for kept in range(len(parts), 0, -1):
        more = f" and {len(parts) - kept} more" if kept < len(parts) else ""
        text = ", ".join(parts[:kept]) + more
        if len(text) <= LONGEST:
            return text
    return strict_yaml.cut(parts[0])


@cache
def _recipe(root: Path, commit: str) -> Mapping[str, Any]:
    """The parameters of a commit's params.yaml by dotted key; empty if it cannot be read."""
    try:
        (content,) = git.blobs(root, [f"{commit}:./params.yaml"])
        tree = strict_yaml.parse((content or b"").decode(), "params.yaml")
    except (UserError, UnicodeDecodeError):  # git's refusal, too: a name is worth no failure
        return {}
    return flatten(completed(tree)) if isinstance(tree, dict) else {}
