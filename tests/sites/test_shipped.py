"""The shipped sites are right, and each of their facts says where it was read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import (
    SHIPPED_SITES,
    known_site,
    known_sites,
    load_profile,
    single_document,
)
from dagster_slurm_components.spec.schemas import schemas
from dagster_slurm_components.spec.site import Site, Source

NAMES = sorted(file.stem for file in SHIPPED_SITES.glob("*.yaml"))
NOT_FACTS = ("sources", "description", "documentation", "verified")


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield ".".join(path)


def source_of(site: Site, path: str) -> Source | None:
    """Return where a fact was read: the longest path that is named, else the one for all."""
    parts = path.split(".")
    names = [*(".".join(parts[:length]) for length in range(len(parts), 0, -1)), "all"]
    return next((site.sources[name] for name in names if name in site.sources), None)


def test_the_promised_sites_are_there() -> None:
    assert {"daint", "leonardo", "lumi", "musica", "tuwien_datalab", "vsc5"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_site_fits_model_and_schema(name: str, tmp_path: Path) -> None:
    known = known_site(name, tmp_path)
    site = known.load()
    assert known.shipped
    assert site.login_nodes
    assert site.logins
    jsonschema.validate(single_document(known.file).data, json.loads(schemas()["site.schema.json"]))


@pytest.mark.parametrize("name", NAMES)
def test_each_fact_has_a_source_and_a_date(name: str, tmp_path: Path) -> None:
    known = known_site(name, tmp_path)
    site, raw = known.load(), single_document(known.file).data
    facts = [path for key in raw if key not in NOT_FACTS for path in leaves(raw[key], (key,))]
    assert facts
    for fact in facts:
        source = source_of(site, fact)
        assert source is not None, fact
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", source.date), fact
        assert not source.verified, "nobody has compared it with the system"


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_about_facts_that_are_there(name: str, tmp_path: Path) -> None:
    raw = single_document(known_site(name, tmp_path).file).data
    for about in raw["sources"]:
        tree: Any = {**raw, "all": True}
        for part in about.split("."):
            assert part in tree, about
            tree = tree[part]


@pytest.mark.parametrize("name", NAMES)
def test_each_qos_of_a_partition_is_described(name: str, tmp_path: Path) -> None:
    site = known_site(name, tmp_path).load()
    assert {qos for partition in site.partitions.values() for qos in partition.qos} <= set(site.qos)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_can_name_it(name: str, tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "production.yaml").write_text(
        f"site: {name}\nhost: {{type: ssh, hostname: login.example.org}}\nscheduler: slurm\nworkdir: /w\n"
    )
    assert load_profile("production", start=tmp_path).site == known_site(name, tmp_path).load()


def test_a_projects_own_site_stands_before_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "vsc5.yaml").write_text("description: ours\n")
    (tmp_path / "sites" / "lab.yaml").write_text("description: the lab\n")
    sites = known_sites(tmp_path / "somewhere" / "deep")
    assert set(sites) == {*NAMES, "lab"}
    assert sites["vsc5"].load().description == "ours"
    assert not sites["vsc5"].shipped


def test_an_unknown_site_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean `leonardo`"):
        known_site("leonrado", tmp_path)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_the_list_names_all(runner: CliRunner) -> None:
    shown = runner.invoke(main, ["sites"])
    assert shown.exit_code == 0
    assert [line.split("\t")[0] for line in shown.output.splitlines()[1:]] == NAMES
    listed = json.loads(runner.invoke(main, ["sites", "--json"]).output)
    assert [site["name"] for site in listed] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_show_tells_all_facts(runner: CliRunner, name: str, tmp_path: Path) -> None:
    shown = runner.invoke(main, ["sites", "show", name])
    assert shown.exit_code == 0
    site = known_site(name, tmp_path).load()
    words = [*site.login_nodes, *site.partitions, *site.qos, *site.notes, *site.paths.values()]
    for word in [*words, "not verified on the system"]:
        assert word in shown.output
    as_json = json.loads(runner.invoke(main, ["sites", "show", name, "--json"]).output)
    assert set(as_json["partitions"]) == set(site.partitions)


def test_a_wrong_name_is_told_in_one_sentence(runner: CliRunner) -> None:
    shown = runner.invoke(main, ["sites", "show", "vsc6"])
    assert shown.exit_code == 1
    assert "unknown site `vsc6`" in shown.output
    assert "did you mean `vsc5`?" in shown.output
    assert "Traceback" not in shown.output
