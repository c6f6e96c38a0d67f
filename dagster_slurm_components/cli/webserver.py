"""What `dg-slurm` asks of Dagster's webserver."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from dagster_slurm_components.errors import DagsterSlurmError

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


def reexecute(run_id: str, url: str) -> str:
    """Have a webserver retry a run from where it failed; return the new run.

    Raises:
        DagsterSlurmError: It gives no answer, or refuses.
    """
    url = url.rstrip("/")
    body = json.dumps({"query": _MUTATION, "variables": {"parent": run_id}}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310 -- the user's own webserver
            said: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        raise DagsterSlurmError(
            f"Dagster's webserver answers HTTP {error.code}: {_reason(error)}",
            where=url,
            hint=f"Without a webserver, in this terminal: dg-slurm attach {run_id}",
        ) from error
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise DagsterSlurmError(
            f"Dagster's webserver gives no answer: {error}",
            where=url,
            hint="Start `dg dev`, or leave --url out: then this terminal goes on with the run.",
        ) from error
    result = (said.get("data") or {}).get("launchRunReexecution") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        raise DagsterSlurmError(f"the retry was refused: {result.get('message') or said}", where=url)
    return str(result["run"]["runId"])


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what the answer says: the field's error, which Dagster sends as HTTP 500, GraphQL's, or HTTP's word."""
    try:
        said = json.load(error)
        errors = said.get("errors") or [said["data"]["launchRunReexecution"]]
        return " ".join(str(each["message"]).strip() for each in errors) or error.reason
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return error.reason
