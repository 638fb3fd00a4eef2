"""The subcommands of `mnist-lstm`, a file each: `add` its arguments, `run` it.

What takes long to import is imported where it is used, so that `--help` answers at once.
"""
