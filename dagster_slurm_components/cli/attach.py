"""``dg-slurm attach``: a run whose process died goes on, and takes up its jobs."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import click

from dagster_slurm_components.cli.terminal import json_option, print_json
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
    "--url", metavar="URL", help="Have Dagster's webserver there launch the retry, and don't wait for it."
)
@json_option
def attach(run: str, url: str | None, as_json: bool) -> None:
    """Go on with RUN where it stopped: its jobs that still run or have ended meanwhile are taken up.

    RUN is a run's id or the first characters of it, at least 4. The retry runs in this terminal, needs nothing but
    DAGSTER_HOME, and ends with status 0 if it succeeds. A run that somebody still follows is left alone.

    With --url a webserver launches the retry. That works for runs that Dagster's UI, daemon or API launched, not for
    those of `dg launch`.
    """
    from dagster_slurm_components.pipes import reexecute as here  # noqa: PLC0415 -- a second
    from dagster_slurm_components.pipes.runs import call_off_retry  # noqa: PLC0415

    with here.opened_instance() as instance:
        parent = here.run_to_take_up(instance, here.find_run(instance, run))
        if url is not None:
            _refuse_without_origin(parent)
            retry, success = reexecute(parent.run_id, url), None
            call_off_retry(instance, parent)
            text = f"run {retry} goes on for run {parent.run_id}"
        else:
            made = here.reexecute_here(instance, parent, tell=lambda text: click.echo(text, err=True))
            retry, success = made.run_id, made.is_success
            text = f"run {retry} went on for run {parent.run_id} and is {made.status.value}"
    if as_json:
        print_json({"run_id": retry, "retry_of": parent.run_id, "success": success})
    else:
        click.echo(text)
    sys.exit(1 if success is False else 0)


def _refuse_without_origin(run: dg.DagsterRun) -> None:
    """Refuse what the webserver answers with HTTP 500 and "CheckError: Expected non-None value: None" (1.13)."""
    if run.remote_job_origin is None:
        raise DagsterSlurmError(
            f"Dagster's webserver can't re-execute run {run.run_id}: it was made in a terminal, by `dg launch` or "
            "`dg-slurm attach`, and so is of none of its code locations",
            hint=f"Without a webserver, in this terminal: dg-slurm attach {run.run_id}",
        )


def reexecute(run_id: str, url: str) -> str:
    """Have a webserver retry a run from where it failed; return the new run.

    Raises:
        DagsterSlurmError: It gives no answer, or refuses.
    """
    url = url.rstrip("/")
    here = f"Without a webserver, in this terminal: dg-slurm attach {run_id}"
    body = json.dumps({"query": _MUTATION, "variables": {"parent": run_id}}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310 -- the user's own webserver
            reply: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        text = f"Dagster's webserver answers HTTP {error.code}: {_reason(error)}"
        raise DagsterSlurmError(text, where=url, hint=here) from error
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise DagsterSlurmError(
            f"Dagster's webserver gives no answer: {error}",
            where=url,
            hint="Start `dg dev`, or leave --url out: then this terminal goes on with the run.",
        ) from error
    result = (reply.get("data") or {}).get("launchRunReexecution") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        raise DagsterSlurmError(f"the retry was refused: {result.get('message') or reply}", where=url)
    return str(result["run"]["runId"])


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what the answer says: the field's error, which Dagster sends as HTTP 500, GraphQL's, or HTTP's word."""
    try:
        reply = json.load(error)
        errors = reply.get("errors") or [reply["data"]["launchRunReexecution"]]
        return " ".join(str(each["message"]).strip() for each in errors) or error.reason
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return error.reason
