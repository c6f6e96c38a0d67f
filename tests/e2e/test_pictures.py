"""What a job used, as a real browser shows it on the asset's page of a real `dg dev`, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from browser import Browser, browser
from lifecycle.dev import Dev
from project_fixture import make_project
from usage_fixture import CASES
from waiting import eventually

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.pipes.advice import pictures
from dagster_slurm_components.pipes.results import typed

pytestmark = pytest.mark.slow

DRAWN = "return [...document.querySelectorAll('img')].filter(each => each.naturalWidth).map(each => each.alt)"
WIDTHS = """
    const all = [...document.querySelectorAll('img')].filter(each => each.alt === arguments[0])
    return all.map(each => [each.naturalWidth, each.getBoundingClientRect().width])
"""
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    project = make_project(tmp_path_factory.mktemp("pictures") / "my project")
    project.scripts("scripts: [{command: ['true'], assets: [{key: a}]}]\n")
    with Dev.running(project, "local") as made:
        yield made


@pytest.fixture(scope="module")
def told(dev: Dev) -> str:
    """Have the asset made by a job with GPUs; return what is said of it."""
    usage, waited = CASES["gpus"]
    figures = pictures(Ended(Observation(), Evidence(), tuple(usage)), {"job/queue_wait_s": waited or 0})
    figures |= {"job/notes": "* used 6 of 256 GiB: `mem: 10G` would do (defs.yaml:12)"}
    with dev.instance() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata=typed(figures)))
    return str(figures["job/usage"]).rpartition("\n")[2]


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_on_the_assets_page(dev: Dev, told: str, tmp_path: Path, theme: str) -> None:
    with browser(tmp_path) as page:
        page.open(f"{dev.url}/assets/a")
        page.run("localStorage.setItem('dagster-theme', JSON.stringify(arguments[0]))", theme)
        page.open(f"{dev.url}/assets/a")
        page.shows(told)
        page.shows("used 6 of 256 GiB: mem: 10G would do (defs.yaml:12)")
        is_dark = sum(map(int, page.run(BACKGROUND).partition("(")[2].split(",")[:2])) < 255
        assert is_dark is (theme == "Dark")
        drawn(page, "memory, CPU, GPU", 312)
        assert page.run(WIDTHS, "what the job used") == []
        page.click("//*[text()='[Show Markdown]']")
        drawn(page, "what the job used", 720)
        page.picture(tmp_path / "page.png")


def drawn(page: Browser, title: str, width: int) -> None:
    """Wait until a picture is drawn, as wide as it is."""
    eventually(lambda: page.run(WIDTHS, title) == [[width, width]], f"{title!r} is drawn")
