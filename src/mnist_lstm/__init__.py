"""A two-layer dropout LSTM that reads handwritten digits a pixel row at a time."""


class UserError(Exception):
    """A mistake of the user's, or of what they handed over: one line, no traceback.

    The message names the thing, what is wrong with it, and what to do.
    """
