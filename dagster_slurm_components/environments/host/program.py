"""What the builder can be asked to do."""

from dagster_slurm_components.environments.host.answering import Actions, serve
from dagster_slurm_components.environments.host.build import build
from dagster_slurm_components.environments.host.care import prune, show, verify
from dagster_slurm_components.environments.host.probe import probe
from dagster_slurm_components.environments.host.store import fetch

ACTIONS: Actions = {
    "probe": probe,
    "fetch": fetch,
    "build": build,
    "list": show,
    "verify": verify,
    "prune": prune,
}


def main() -> None:
    """Take one order and answer it."""
    serve(ACTIONS)
