"""Assets of scripts downstream of what no script makes: external assets, and sources that are observed."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_slurm_components import ComputeResource

SCRIPT = """
payload: train.py
assets:
  - key: model
    deps: [raw, weather]
    automation_condition: "{{ dg.AutomationCondition.eager() }}"
"""


class Upstream:
    """A script's asset, an external asset and an observed one."""

    def __init__(self, project, instance: dg.DagsterInstance) -> None:
        project.script(SCRIPT)
        self.version = "1"

        @dg.observable_source_asset
        def weather():
            return dg.DataVersion(self.version)

        rest = dg.Definitions([weather, dg.AssetSpec("raw")], resources={"compute": ComputeResource()})
        self.defs = dg.Definitions.merge(project.load(), rest)
        self.instance = instance
        self.cursor = None

    def run(self, asset: str) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=self.instance, asset_selection=[dg.AssetKey(asset)]).success

    def asks_for(self) -> list[str]:
        """Return the assets that their conditions ask for now."""
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        return [result.key.to_user_string() for result in found.results if result.true_subset.size]


@pytest.fixture
def upstream(project):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Upstream(project, instance)


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_automation_follows_external_and_observed_assets(upstream):
    instance = upstream.instance
    instance.report_runless_asset_event(dg.AssetMaterialization("raw"))
    upstream.run("weather")
    upstream.run("model")
    assert upstream.asks_for() == []
    instance.report_runless_asset_event(dg.AssetMaterialization("raw"))
    assert upstream.asks_for() == ["model"]
    upstream.run("model")
    assert upstream.asks_for() == []
    upstream.run("weather")  # and it is as it was
    assert upstream.asks_for() == []
    upstream.version = "2"
    upstream.run("weather")
    assert upstream.asks_for() == ["model"]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_versions_of_what_is_observed_are_those_that_a_script_was_made_from(upstream):
    upstream.run("weather")
    upstream.run("model")
    made = upstream.instance.get_latest_materialization_event(dg.AssetKey("model"))
    assert made is not None
    assert made.asset_materialization is not None
    assert made.asset_materialization.tags["dagster/input_data_version/weather"] == "1"
