"""`dg-slurm attach --url`: what a webserver answers is told, and what to do instead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dagster_slurm_components.cli.attach import reexecute
from dagster_slurm_components.errors import DagsterSlurmError


class Server(ThreadingHTTPServer):
    """Gives one answer, and keeps what it was asked."""

    answer: tuple[int, bytes] = (200, b"")
    asked: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked = {"path": self.path, **asked["variables"]}
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def refused(server: Server, status: int, body: bytes) -> str:
    server.answer = (status, body)
    with pytest.raises(DagsterSlurmError) as error:
        reexecute("8d1f", server.url)
    assert error.value.where == server.url
    return f"{error.value.message} | {error.value.hint}"


def test_a_retry_is_launched(server: Server) -> None:
    result = {"__typename": "LaunchRunSuccess", "run": {"runId": "new"}}
    server.answer = (200, json.dumps({"data": {"launchRunReexecution": result}}).encode())
    assert reexecute("8d1f", f"{server.url}/") == "new"
    assert server.asked == {"path": "/graphql", "parent": "8d1f"}


SAID = "dagster_shared.check.functions.CheckError: Expected non-None value: None\n"


@pytest.mark.parametrize(
    "answer",
    [
        # As Dagster 1.13 answers for a run of `dg launch`.
        {"data": {"launchRunReexecution": {"__typename": "PythonError", "message": SAID}}},
        {"data": None, "errors": [{"message": SAID, "path": ["launchRunReexecution"]}]},
    ],
)
def test_http_500_says_what_dagster_said_and_what_to_do_instead(
    server: Server, answer: dict[str, object]
) -> None:
    said = refused(server, 500, json.dumps(answer).encode())
    assert said == (
        f"Dagster's webserver answers HTTP 500: {SAID.strip()} | "
        "Without a webserver, in this terminal: dg-slurm attach 8d1f"
    )


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"errors": []}', b'{"errors": [1]}', b"\xff"]
)
def test_an_answer_of_another_kind_of_server_is_no_riddle(server: Server, body: bytes) -> None:
    assert "answers HTTP 502: Bad Gateway |" in refused(server, 502, body)


def test_a_refusal_is_told(server: Server) -> None:
    result = {"__typename": "PythonError", "message": "no such job"}
    body = json.dumps({"data": {"launchRunReexecution": result}}).encode()
    assert "the retry was refused: no such job" in refused(server, 200, body)


def test_where_nobody_answers_the_terminal_can_go_on() -> None:
    with Server(("127.0.0.1", 0), Handler) as gone:
        url = gone.url
    with pytest.raises(DagsterSlurmError) as error:
        reexecute("8d1f", url)
    assert "gives no answer" in error.value.message
    assert "leave --url out" in str(error.value.hint)
