"""What a Python asset is told that takes the value of a script's asset: there is none."""

import dagster as dg

NO_VALUE = "slurm_script"
"""The key of the IO manager of scripts' assets."""


class NoValue(dg.IOManager):
    """Refuses to load: a script makes files on its host, and no value that Dagster could hand on.

    Dagster's default would look for a file that nobody wrote (``FileNotFoundError``, dagster 1.13).
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store nothing; Dagster calls it for values alone."""

    def load_input(self, context: dg.InputContext) -> object:
        """Say what to do instead."""
        key = context.asset_key.to_user_string()
        raise dg.Failure(
            f"`{key}` is made by a script, which hands on no value. Write `deps=[{key!r}]` in the place of the "
            "argument, and read the files that the script makes; it can report their path as metadata.",
            allow_retries=False,
        )
