"""``dg-slurm attach``: a run whose process died is retried, and takes up its jobs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import click

from dagster_slurm_components.cli.terminal import errors_told
from dagster_slurm_components.errors import DagsterSlurmError

if TYPE_CHECKING:
    import dagster as dg

_ANSWER = 300.0
"""Seconds: the webserver answers when the run's process has started, which takes a minute where many start at once."""
_MUTATION = """
mutation ($parent: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: FROM_FAILURE}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@click.command()
@click.argument("run")
@click.option(
    "--url", default="http://127.0.0.1:3000", show_default=True, help="Where Dagster's webserver is."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def attach(run: str, url: str, as_json: bool) -> None:
    """Retry RUN from where it stopped: it takes up the jobs that still run or have ended meanwhile.

    Needs DAGSTER_HOME and a running `dg dev` or webserver. A run that somebody still follows is left alone.
    """
    import dagster as dg  # noqa: PLC0415 -- a second; `dg-slurm --help` must not wait for it

    with errors_told():
        with dg.DagsterInstance.get() as instance:
            end_if_dead(instance, run)
        retry = reexecute(run, url.rstrip("/"))
    click.echo(
        json.dumps({"run_id": retry, "retry_of": run}) if as_json else f"run {retry} goes on for run {run}"
    )


def end_if_dead(instance: dg.DagsterInstance, run_id: str) -> None:
    """Make sure that a run is over.

    Raises:
        DagsterSlurmError: It is not, it succeeded, or there is none.
    """
    from dagster_slurm_components.pipes.orphans import end_if_dead as heal_if_dead  # noqa: PLC0415

    run = instance.get_run_by_id(run_id)
    if run is None:
        raise DagsterSlurmError(
            f"there is no run {run_id!r}", hint="Is DAGSTER_HOME set to Dagster's folder?"
        )
    if run.is_success:
        raise DagsterSlurmError(f"run {run_id} has succeeded: there is nothing to take up")
    if run.is_finished or heal_if_dead(instance, run) is not None:
        return
    run = instance.get_run_by_id(run_id)  # somebody else may have found it dead meanwhile
    if run is None or not run.is_finished:
        state = run.status.value if run else "gone"
        raise DagsterSlurmError(
            f"run {run_id} is {state}, and its process is not known to be dead",
            hint="Terminate it in Dagster first; `dg-slurm jobs list` shows its jobs.",
        )


def reexecute(run_id: str, url: str) -> str:
    """Have a webserver retry a run from where it failed; return the new run.

    Raises:
        DagsterSlurmError: It gives no answer, or refuses.
    """
    body = json.dumps({"query": _MUTATION, "variables": {"parent": run_id}}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310 -- the user's own webserver
            said: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise DagsterSlurmError(
            f"Dagster's webserver gives no answer: {error}",
            where=url,
            hint="Start `dg dev`, or name the webserver with --url.",
        ) from error
    result = (said.get("data") or {}).get("launchRunReexecution") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        raise DagsterSlurmError(f"the retry was refused: {result.get('message') or said}", where=url)
    return str(result["run"]["runId"])
