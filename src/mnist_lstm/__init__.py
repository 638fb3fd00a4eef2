"""A two-layer dropout LSTM that reads handwritten digits a pixel row at a time."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> object:
        """`__version__`, which pyproject.toml has: here, a new number would train everything anew.

        Stages depend on this file, and it is read where the package is not installed, too.
        """
        if name == "__version__":
            from importlib.metadata import version

            return version("mnist-lstm")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class UserError(Exception):
    """A mistake of the user's, or of what they handed over: one line, no traceback.

    The message names the thing, what is wrong with it, and what to do.
    """
