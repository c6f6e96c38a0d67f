"""The programs that a user types: `dg list`, `dg check`, `dg launch` and `dg dev` with its page."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
from project_fixture import BIN, Project

pytestmark = pytest.mark.slow

SCRIPTS = """
    scripts:
      - payload: hello.sh
        assets: [{key: greetings/hello, group_name: words}]
"""


@pytest.fixture
def ready(project: Project) -> Project:
    project.write("hello.sh", "echo hello; sleep 0.2\n")
    project.scripts(SCRIPTS)
    return project


def test_dg_lists_checks_and_launches(ready: Project) -> None:
    assert "greetings/hello" in ready.dg("list", "defs").stdout
    ready.dg("check", "defs")
    done = ready.dg("launch", "--assets", "greetings/hello")
    assert "RUN_SUCCESS" in done.stdout + done.stderr


def test_dg_check_defs_prints_one_clean_error(ready: Project) -> None:
    ready.scripts("scripts:\n  - payload: helo.sh\n    assets: [{key: a}]\n")
    done = ready.dg("check", "defs", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "defs.yaml:4:" in text
    assert "helo.sh" in text


def ask(port: int, query: str, **variables: object) -> dict[str, object]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, object] = json.load(answer)
    assert "errors" not in found, found
    return found["data"]  # type: ignore[return-value]


def eventually(seconds: float, attempt):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = attempt()
            if found:
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


LAUNCH = """
mutation ($location: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: $location, repositoryName: "__repository__", jobName: "__ASSET_JOB",
               assetSelection: [{path: ["greetings", "hello"]}]}
    mode: "default"
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""


def test_dg_dev_serves_its_page_and_runs_an_asset(ready: Project) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    home = ready.root / "dagster home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ready.root / 'src'}:{os.getcwd()}",
    }
    log = (ready.root / "dev.log").open("w")
    server = subprocess.Popen(
        [str(BIN / "dg"), "dev", "--port", str(port), "--host", "127.0.0.1"],
        cwd=ready.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        find = "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
        nodes = eventually(90, lambda: ask(port, find)["repositoriesOrError"]["nodes"])  # type: ignore[index]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/assets", timeout=30) as page:
            assert b"<html" in page.read()
        launched = ask(port, LAUNCH, location=nodes[0]["location"]["name"])["launchRun"]
        run_id = launched["run"]["runId"]  # type: ignore[index]
        status = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

        def ended() -> str | None:
            found = ask(port, status, id=run_id)["runOrError"]["status"]  # type: ignore[index]
            return found if found in ("SUCCESS", "FAILURE", "CANCELED") else None

        assert eventually(120, ended) == "SUCCESS"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)
        log.close()
