"""Export each architecture once for all test processes and forks of the zygote.

An export of a model takes a second and does not depend on its weights: they are put into it.
"""

import copy
import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "exports"  # beside that of the zygote


def exporting_once(export: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """`torch.export.export`, which keeps its programs in a folder and in memory."""
    known: dict[Path, Any] = {}

    def exported(model: Any, args: tuple[Any, ...], **settings: Any) -> Any:
        import torch  # seconds, for processes that export nothing

        weights = model.state_dict()
        file = folder / f"{_digest(model, args, settings)}.pt2"
        if not file.exists():
            folder.mkdir(exist_ok=True)
            program = export(copy.deepcopy(model), args, **settings)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".pt2", delete=False) as draft:
                torch.export.save(program, draft)
            Path(draft.name).replace(file)
        program = known[file] = known.get(file) or torch.export.load(file)
        with torch.no_grad():
            for name, weight in weights.items():
                program.state_dict[name].copy_(weight)
        return program

    return exported


def _digest(model: Any, args: tuple[Any, ...], settings: dict[str, Any]) -> str:
    """Of all that a program depends on but the weights: code, architecture and shapes."""
    tensors = {name: (each.shape, each.dtype) for name, each in model.state_dict().items()}
    inputs = [(each.shape, each.dtype) for each in args]
    model_is = (model.model.config, model.model.precision, model.training)
    said = repr((model_is, tensors, inputs, settings))
    code = Path(str(sys.modules[type(model).__module__].__file__)).parent
    texts = [said.encode(), *(file.read_bytes() for file in sorted(code.glob("*.py")))]
    return hashlib.sha256(b"".join(texts)).hexdigest()
