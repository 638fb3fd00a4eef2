"""The subcommands of `mnist-lstm`, a file each: `add` its arguments, `run` it.

What takes long to import is imported where it is used, so that `--help` answers at once.
"""

RUN = """\
A RUN is a name, a training_id or MLflow's id of it, a DVC experiment, or the start of one of these
that no other run has. `mnist-lstm runs` lists them."""
