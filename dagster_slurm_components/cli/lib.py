"""``dg-slurm lib``: where the helpers lie that each job has in its ``lib/``."""

from pathlib import Path

import click


@click.command()
def lib() -> None:
    """Print the folder of pipes.sh, pipes.R and pipes.jl, for payloads run by hand; jobs have them."""
    click.echo(Path(__file__).parents[1] / "jobs" / "lib")
