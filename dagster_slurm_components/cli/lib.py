"""``dg-slurm lib``: where the helpers lie that each job has in its ``lib/``."""

from pathlib import Path

import click

import dagster_slurm_components


@click.command()
def lib() -> None:
    r"""Print the folder of pipes.sh, pipes.R and pipes.jl.

    Jobs have them in DAGSTER_SLURM_LIB; this is for payloads run by hand:

    \b
      export DAGSTER_SLURM_LIB=$(dg-slurm lib)
    """
    click.echo(Path(dagster_slurm_components.__file__).parent / "jobs" / "lib")
