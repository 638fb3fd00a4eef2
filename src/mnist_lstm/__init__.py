"""A two-layer dropout LSTM that reads handwritten digits a pixel row at a time."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Read `__version__` from the installed package: the number itself is in pyproject.toml.

        Every stage depends on this file. A new number written here would repeat every training.
        It is looked up late, because stages also import this file without an installed package.
        """
        if name == "__version__":
            from importlib.metadata import version

            return version("mnist-lstm")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class UserError(Exception):
    """A mistake in what the user wrote or provided; it is reported in one line, no traceback.

    The message names the thing, what is wrong with it, and what to do.
    """
