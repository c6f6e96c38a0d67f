"""What a host can be asked to do with inputs."""

from dagster_slurm_components.data.host.care import prune, show
from dagster_slurm_components.data.host.fetch import fetch
from dagster_slurm_components.data.host.trees import link
from dagster_slurm_components.data.host.unpack import unpack
from dagster_slurm_components.environments.host.answering import Actions, answer_of, serve
from dagster_slurm_components.environments.host.tools import Json

ACTIONS: Actions = {"link": link, "fetch": fetch, "unpack": unpack, "list": show, "prune": prune}


def answer(action: str, order: Json) -> Json:
    """Do one action in this process: where inputs are fetched here, and not on the host."""
    return answer_of(ACTIONS, action, order)


def main() -> None:
    """Take one order and answer it."""
    serve(ACTIONS)
