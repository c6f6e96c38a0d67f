"""Golden files: what each configuration file looks like, for a settled layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from slurm_testcluster import Cluster, render
from slurm_testcluster.isolation import Isolation
from slurm_testcluster.layout import Layout, Ports

GOLDEN = Path(__file__).with_name("golden")

LAYOUT = Layout(
    folder=Path("/home/ada/.cache/dagster-slurm/cluster"),
    user="ada",
    home=Path("/home/ada"),
    ports=Ports(17000),
    isolation=Isolation.ROOT,
    hostname="laptop",
)
SHARED = Layout(
    folder=Path("/home/ada/lab"),
    user="ada",
    home=Path("/home/ada"),
    ports=Ports(18000),
    isolation=Isolation.NONE,
    hostname="laptop",
    address="127.0.1.1",
)

TEXTS = {
    "slurm.conf": render.slurm_conf(LAYOUT),
    "slurm-without-accounting.conf": render.slurm_conf(replace(LAYOUT, accounting=False)),
    "slurm-without-namespaces.conf": render.slurm_conf(SHARED),
    "gres.conf": render.gres_conf(LAYOUT),
    "slurmdbd.conf": render.slurmdbd_conf(LAYOUT),
    "sacctmgr.txt": render.accounting_commands(LAYOUT),
    "sshd_config": render.sshd_config(LAYOUT, use_pam=False),
    "hosts": render.hosts("127.0.0.1 localhost\n127.0.1.1 laptop\n"),
    "known_hosts": render.known_hosts(LAYOUT, "ssh-ed25519 AAAAC3Nz host\n"),
    "profile.yaml": render.profile_yaml(LAYOUT),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_the_golden_one(name: str) -> None:
    file = GOLDEN / name
    if os.environ.get("DAGSTER_SLURM_UPDATE_GOLDEN") == "1":
        file.write_text(TEXTS[name])
    assert TEXTS[name] == file.read_text()


def test_every_golden_file_is_rendered() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == set(TEXTS)


def test_profile_yaml_reads_back_as_the_profile() -> None:
    profile = Cluster(**vars(LAYOUT)).profile
    assert yaml.safe_load(TEXTS["profile.yaml"]) == profile
    assert profile["host"] == {
        "type": "ssh",
        "hostname": "127.0.0.1",
        "port": LAYOUT.ports.of("sshd"),
        "user": "ada",
        "key_file": str(LAYOUT.key_file),
        "known_hosts_file": str(LAYOUT.known_hosts_file),
    }
    assert profile["workdir"] == str(LAYOUT.work)


@pytest.mark.parametrize("user", ["no", "1e3", "~", "a: b", "o'neil", 'quo"te', "x #y", "žofie", "null"])
def test_profile_yaml_quotes_what_yaml_would_misread(user: str) -> None:
    assert yaml.safe_load(render.profile_yaml(replace(LAYOUT, user=user)))["host"]["user"] == user


def test_sshd_asks_pam_only_where_told() -> None:
    assert "UsePAM no\n" in render.sshd_config(LAYOUT, use_pam=False)
    assert "UsePAM yes\n" in render.sshd_config(LAYOUT, use_pam=True)
