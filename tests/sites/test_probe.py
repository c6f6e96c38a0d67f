"""A draft of a site from a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.doctor.examine import examine_profile
from dagster_slurm_components.doctor.probe import draft, draft_site
from dagster_slurm_components.doctor.slurm_facts import parse_node_kinds, parse_partitions, parse_qualities
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile, known_site
from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.site import Site


def test_what_slurm_says_of_a_large_cluster() -> None:
    partitions = parse_partitions(
        "PartitionName=boost AllowQos=normal,dbg Default=YES MaxNodes=256 MinNodes=2 MaxTime=1-00:00:00 State=UP"
        " TotalNodes=3456\n"
        "PartitionName=serial AllowQos=ALL DenyQos=dbg Default=NO MaxNodes=1 MaxTime=UNLIMITED State=UP TotalNodes=2\n"
    )
    kinds = parse_node_kinds(
        "boost|3450|32|494000|gpu:a100:4(S:0-1)\nboost|6|32+|500000+|gpu:a100:4\nserial|2|8|30000|(null)\n"
    )
    qualities = parse_qualities("normal||||\ndbg|00:30:00|5|node=2,cpu=64|\nbig|||node=256|node=65\n")
    site = draft(partitions, kinds, qualities)
    assert site["partitions"]["boost"] == {
        "nodes": 3456,
        "max_time": "1-00:00:00",
        "min_nodes": 2,
        "max_nodes": 256,
        "max_cpus_per_node": 32,
        "max_mem_per_node": "500000M",
        "max_gpus_per_node": 4,
        "gpu_type": "a100",
        "qos": ["dbg", "normal"],
    }
    assert site["partitions"]["serial"] == {
        "nodes": 2,
        "max_nodes": 1,
        "max_cpus_per_node": 8,
        "max_mem_per_node": "30000M",
        "max_gpus_per_node": 0,
        "qos": ["big", "normal"],
    }
    assert site["qos"] == {
        "normal": {},
        "dbg": {"max_time": "00:30:00", "max_nodes": 2, "max_submit_jobs": 5},
        "big": {"min_nodes": 65, "max_nodes": 256},
    }
    assert site["resources"] == {"partition": "boost"}
    Site.model_validate(site)


def test_a_host_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("dagster_slurm_components.hosts.satellite.commands._login_found", [{}])
    with pytest.raises(DagsterSlurmError, match="Slurm does not answer"):
        draft_site(LoadedProfile("x", Profile(), (), tmp_path))


@pytest.mark.slurm
def test_the_draft_is_a_site_that_a_profile_can_name(
    cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "staging.yaml").write_text((cluster.folder / "profile.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["sites", "probe", "--profile", "staging", "--name", "lab"])
    assert made.exit_code == 0, made.output
    site = known_site("lab", tmp_path).load()
    assert set(site.partitions) == {"debug", "gpu", "preempt", "spot", "high", "closed", "down"}
    assert site.partitions["gpu"].gpu_type == "a100"
    assert site.partitions["gpu"].max_gpus_per_node == 4
    assert site.qos["limited"].max_submit_jobs == 2
    assert site.resources.partition == "debug"
    assert site.logins[0].port == cluster.ssh_port
    (profiles / "staging.yaml").write_text("site: lab\n" + (cluster.folder / "profile.yaml").read_text())
    assert check_project([tmp_path]).problems == ()
    findings = [each for each in examine_profile("staging", start=tmp_path) if each.check == "site"]
    assert [each.detail for each in findings] == [
        "the facts of `lab` allow nothing that the cluster does not"
    ]
    again = CliRunner().invoke(main, ["sites", "probe", "--profile", "staging", "--name", "lab"])
    assert again.exit_code == 1
    assert "is there already" in again.output
    printed = CliRunner().invoke(main, ["sites", "probe", "--profile", "staging", "--print"])
    assert (
        yaml.safe_load(printed.output)["partitions"]
        == yaml.safe_load((tmp_path / "sites" / "lab.yaml").read_text())["partitions"]
    )
