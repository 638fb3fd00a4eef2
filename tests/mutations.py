"""Valid files made invalid, and the settings under which every reader is fuzzed with them."""

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Edit = tuple[str, int, int, bytes]


def fuzz(cases: int) -> settings:
    """So many cases, the same ones in every run of the tests: what fails once fails again."""
    return settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,  # a case takes a millisecond, and ten on a busy machine
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def some_edits(values: Sequence[bytes]) -> SearchStrategy[Sequence[Edit]]:
    """One to three edits of a file. `values` are worth writing, beside bytes that are drawn."""
    kinds = st.sampled_from(["flip", "overwrite", "insert", "repeat", "delete", "cut"])
    place = st.integers(0, 2**16 - 1)
    written = st.binary(min_size=1, max_size=8) | st.sampled_from(values)
    return st.lists(st.tuples(kinds, place, place, written), min_size=1, max_size=3)


def edited(content: bytes, fields: Sequence[int], edits: Sequence[Edit]) -> bytes:
    """A file after some edits, half of them at `fields`: where its header says something."""
    file = bytearray(content)
    for kind, place, other, written in edits:
        where, odd = divmod(place, 2)
        at = fields[where % len(fields)] if odd else where % len(content)
        match kind:
            case "flip" if at < len(file):
                file[at] ^= 1 << other % 8
            case "overwrite":
                file[at : at + len(written)] = written
            case "insert":
                file[at:at] = written
            case "repeat":
                file[at:at] = content[other % len(content) :][:64]
            case "delete":
                del file[at : at + len(written)]
            case "cut":
                del file[at:]
    return bytes(file)
