"""What a model is and what it reads, in words."""

from collections.abc import Mapping
from typing import Any

NUMBERS = {3: "three", 5: "five", 7: "seven"}


def cell(model: Mapping[str, Any]) -> str:
    """The kind of network of the section `model` of a params.yaml: LSTM, GRU or RNN."""
    return str(model.get("cell", "lstm")).upper()  # older runs lack the key and are LSTMs


def reads(model: Mapping[str, Any]) -> str:
    """What a model reads at each time step: `a pixel row at a time`.

    `model` is the section of a params.yaml. Raises KeyError if it has a value that params.yaml may
    not have.
    """
    window = model.get("window", 1)  # older runs lack these keys, and read single rows
    row, column = (
        f"a pixel {line}" if window == 1 else f"{NUMBERS[window]} pixel {line}s"
        for line in ("row", "column")
    )
    words = {"rows": row, "columns": column, "both": f"{row} and {column}"}
    return f"{words[model.get('reads', 'rows')]} at a time"
