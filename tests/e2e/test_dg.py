"""The programs that a user types: `dg list`, `dg check`, `dg launch` and `dg dev` with its page."""

from __future__ import annotations

import urllib.request

import dagster as dg
import pytest
from lifecycle.dev import Dev
from project_fixture import Project
from waiting import PATIENCE

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


def test_dg_dev_serves_its_page_and_runs_an_asset(ready: Project) -> None:
    with Dev.running(ready, "local") as dev:
        with urllib.request.urlopen(f"{dev.url}/assets", timeout=PATIENCE) as page:
            assert b"<html" in page.read()
        dev.ends(dev.launch("greetings/hello"), dg.DagsterRunStatus.SUCCESS)
