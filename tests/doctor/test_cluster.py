"""What can be wrong with Slurm: on a real one, and with programs that answer as broken ones do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import slurm_testcluster as slurm
from dagster_slurm_components.doctor.examine import examine
from dagster_slurm_components.doctor.findings import Finding, Verdict
from dagster_slurm_components.doctor.slurm_facts import (
    parse_associations,
    parse_gpus,
    parse_node_kinds,
    parse_partitions,
    parse_qualities,
)
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.site import Site

Look = Callable[..., dict[str, Finding]]
SLURM = (
    "slurm_clients",
    "slurm_version",
    "controller",
    "accounting",
    "association",
    "limits",
    "partition",
    "submission",
)

CONFIG = (
    "ClusterName             = old\nAccountingStorageType   = {type}\nAccountingStorageEnforce = {enforce}\n"
)
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=8 MaxTime=1-00:00:00"
    " MinNodes=0 State=UP TotalNodes=16\n"
    "PartitionName=gpu AllowAccounts=proj1 AllowQos=normal,debug Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED"
    " State=UP TotalNodes=4\n"
    "PartitionName=own AllowAccounts=proj2 Default=NO MaxTime=02:00:00 State=UP TotalNodes=4\n"
    "PartitionName=old DenyAccounts=proj2 DenyQos=debug Default=NO MaxTime=02:00:00 State=DRAIN TotalNodes=4\n"
)


class FakeSlurm:
    """A folder of programs that answer as told; nothing else of Slurm is on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("env", "sh", "bash", "cat"):
            (folder / name).symlink_to(str(shutil.which(name)))
        self.answers(
            "slurm 23.11.4", CONFIG.format(type="accounting_storage/slurmdbd", enforce="associations,limits")
        )

    def answers(self, version: str, config: str) -> None:
        self.program("scontrol", {"config": config, "partition": PARTITIONS, "--version": version})
        mine = "proj1||normal,debug|proj1|normal|12:00:00|\n"
        qualities = "normal||||\ndebug|00:30:00|2||\n"
        self.program("sacctmgr", {"withassoc": mine, "qos": qualities, "--version": version})
        for name in ("sbatch", "squeue", "scancel", "sacct", "sinfo"):
            self.program(name, {"--version": version})

    def program(self, name: str, answers: dict[str, str], *, error: str = "", returncode: int = 0) -> None:
        """Write a program that answers by the words of its arguments."""
        cases = []
        for number, (word, text) in enumerate(answers.items()):
            file = self.folder / f"{name}.{number}"
            file.write_text(text + ("" if text.endswith("\n") else "\n"))
            cases.append(f'*" {word} "*) exec cat "{file}";;\n')
        (self.folder / f"{name}.err").write_text(error)
        script = self.folder / name
        script.write_text(
            f'#!/bin/sh\ncase " $* " in\n{"".join(cases)}esac\n'
            f'cat "{self.folder / f"{name}.err"}" >&2\nexit {returncode}\n'
        )
        script.chmod(0o755)

    def without(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    made = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(made.folder))
    # A login shell must not find the real programs of this machine.
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bash_profile").write_text(f"PATH='{made.folder}'\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("dagster_slurm_components.hosts.satellite.commands._login_found", [{}])
    return made


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {check: found[check].verdict.value for check in SLURM if check in found}


def test_all_is_well(fake: FakeSlurm, look: Look) -> None:
    assert verdicts(look(scheduler="slurm")) == dict.fromkeys(SLURM, "ok")


def test_the_process_scheduler_needs_no_slurm(fake: FakeSlurm, look: Look) -> None:
    assert verdicts(look(scheduler="process")) == {}


def test_no_sbatch(fake: FakeSlurm, look: Look) -> None:
    fake.without("sbatch")
    found = look(scheduler="slurm")
    assert found["slurm_clients"].is_failure
    assert found["slurm_clients"].detail == "there is no `sbatch`"
    assert "PATH" in str(found["slurm_clients"].advice)
    assert all(found[check].verdict is Verdict.SKIPPED for check in SLURM[1:])


def test_no_sacct_is_no_failure(fake: FakeSlurm, look: Look) -> None:
    fake.without("sacct")
    found = look(scheduler="slurm")
    assert found["slurm_clients"].verdict is Verdict.WARNING
    assert not any(finding.is_failure for finding in found.values())


def test_an_old_slurm(fake: FakeSlurm, look: Look) -> None:
    fake.answers("slurm 19.05.8", CONFIG.format(type="accounting_storage/slurmdbd", enforce="none"))
    assert look(scheduler="slurm")["slurm_version"].is_failure


def test_the_controller_is_down(fake: FakeSlurm, look: Look) -> None:
    said = "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)\n"
    fake.program("scontrol", {}, error=said, returncode=1)
    found = look(scheduler="slurm")
    assert found["controller"].is_failure
    assert "Unable to contact slurm controller" in found["controller"].detail
    assert found["submission"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize("kind", ["accounting_storage/none", "(null)", "accounting_storage/filetxt"])
def test_accounting_is_off(fake: FakeSlurm, look: Look, kind: str) -> None:
    fake.answers("slurm 23.11.4", CONFIG.format(type=kind, enforce="none"))
    found = look(scheduler="slurm", resources={"account": "whatever"})
    assert found["accounting"].verdict is Verdict.WARNING
    assert found["accounting"].detail == "accounting is off on this cluster"
    assert found["association"].verdict is Verdict.SKIPPED
    assert found["limits"].verdict is Verdict.SKIPPED


def test_the_database_does_not_answer(fake: FakeSlurm, look: Look) -> None:
    said = "sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent connection\n"
    fake.program("sacctmgr", {}, error=said, returncode=1)
    found = look(scheduler="slurm")
    assert found["accounting"].verdict is Verdict.WARNING
    assert "failed to open persistent connection" in found["accounting"].detail


@pytest.mark.parametrize(
    ("resources", "check", "detail"),
    [
        ({"account": "proj2"}, "association", "may not use the account `proj2`; did you mean `proj1`?"),
        ({"qos": "debgu"}, "association", "may not use the QOS `debgu`; did you mean `debug`?"),
        ({"time": "13:00:00"}, "limits", "`time` is 13:00:00, and your account `proj1` allows 12:00:00"),
        ({"qos": "debug", "time": "1:00:00"}, "limits", "and your QOS `debug` allows 00:30:00"),
        ({"partition": "mian"}, "partition", "there is no partition `mian`; did you mean `main`?"),
        ({"partition": "old"}, "partition", "the partition `old` is DRAIN"),
        ({"partition": "gpu", "qos": "long"}, "partition", "does not take the qos `long`"),
        (
            {"partition": "own"},
            "partition",
            "does not take the account `proj1`, which jobs have that name none",
        ),
        ({"partition": "gpu", "account": "proj2"}, "partition", "does not take the account `proj2`"),
        ({"time": "2-00:00:00"}, "partition", "the partition `main` allows 1-00:00:00"),
        ({"time": "UNLIMITED"}, "partition", "the partition `main` allows 1-00:00:00"),
        ({"partition": "main,nope"}, "partition", "there is no partition `nope`"),
    ],
)
def test_what_the_profile_asks_for(
    fake: FakeSlurm, look: Look, resources: dict[str, str], check: str, detail: str
) -> None:
    found = look(scheduler="slurm", resources=resources)[check]
    assert found.is_failure
    assert detail in found.detail
    assert found.advice


def test_a_limit_of_jobs_is_noted_until_the_profile_has_it(fake: FakeSlurm, look: Look) -> None:
    asked = {"qos": "debug", "time": "5"}
    found = look(scheduler="slurm", resources=asked)["limits"]
    assert found.verdict is Verdict.NOTE
    assert found.detail == "your QOS `debug` lets 2 jobs wait and run at once"
    assert "max_submit_jobs: 2" in str(found.advice)
    within = look(scheduler="slurm", resources=asked, limits={"max_submit_jobs": 2})["limits"]
    assert within.verdict is Verdict.OK


@pytest.mark.parametrize(("returncode", "said"), [(1, "sacct: error: Access/permission denied"), (1, "")])
def test_a_sacct_that_tells_nothing(fake: FakeSlurm, tmp_path: Path, returncode: int, said: str) -> None:
    """What will be missing is a line each, with the cluster's own figure."""
    fake.program("sacct", {"--version": "slurm 23.11.4"}, error=said, returncode=returncode)
    config = CONFIG.format(type="accounting_storage/slurmdbd", enforce="associations")
    fake.program("scontrol", {"config": f"{config}MinJobAge = 300 sec\n", "partition": PARTITIONS})
    profile = Profile.model_validate({"workdir": str(tmp_path / "work"), "scheduler": "slurm"})
    told = [
        each for each in examine(LoadedProfile("test", profile, (), tmp_path)) if each.check == "accounting"
    ]
    assert [each.verdict for each in told] == [Verdict.WARNING, *[Verdict.NOTE] * 4]
    assert (said.rpartition(": ")[2] or "exit code 1") in told[0].detail
    details = "\n".join(each.detail for each in told)
    assert "by whom a job was cancelled" in details
    assert "for 300 sec from Slurm" in details
    assert not any(finding.is_failure for finding in told)


def test_a_user_without_an_account(fake: FakeSlurm, look: Look) -> None:
    fake.program("sacctmgr", {"--version": "slurm 23.11.4"})
    assert "has no account" in look(scheduler="slurm")["association"].detail


def test_sbatch_has_the_last_word(fake: FakeSlurm, look: Look) -> None:
    said = "sbatch: error: lua: this project has used up its hours\nallocation failure: Unspecified error\n"
    fake.program("sbatch", {"--version": "slurm 23.11.4"}, error=said, returncode=1)
    found = look(scheduler="slurm")["submission"]
    assert found.is_failure
    assert "used up its hours" in found.detail


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"partitions": {"main": {"max_time": "12:00:00", "max_nodes": 8, "max_cpus_per_node": 64}}}, []),
        ({"partitions": {"gpu": {"max_time": "30-0"}}, "qos": {"normal": {"max_time": "9-0"}}}, []),
        (
            {"partitions": {"main": {"max_time": "2-00:00:00", "max_nodes": 16}}},
            [
                "partition main: 2-00:00:00 is longer than its limit of 1-00:00:00",
                "partition main: 16 nodes are more than its limit of 8",
            ],
        ),
        (
            {"partitions": {"gpu": {"max_gpus_per_node": 8, "max_mem_per_node": "1T"}}},
            [
                "partition gpu: 8 GPUs on a node are more than its 4",
                "partition gpu: 1048576M on a node is more than its 512000M",
            ],
        ),
        ({"partitions": {"main": {}, "bigmem": {}}}, ["there is no partition `bigmem`"]),
        (
            {"qos": {"debug": {"max_time": "01:00:00"}, "gold": {}}},
            ["QOS debug: 01:00:00 is longer than its limit of 00:30:00", "there is no QOS `gold`"],
        ),
    ],
)
def test_facts_of_a_site_that_the_cluster_does_not_confirm(
    fake: FakeSlurm, tmp_path: Path, facts: dict[str, object], told: list[str]
) -> None:
    fake.program("sinfo", {"--noheader": "main|16|64|256000|(null)\ngpu|4|32|512000|gpu:a100:4\n"})
    profile = Profile.model_validate(
        {"workdir": str(tmp_path / "work"), "scheduler": "slurm", "site": "ours"}
    )
    loaded = LoadedProfile("test", profile, (), tmp_path, Site.model_validate(facts))
    found = [each for each in examine(loaded) if each.check == "site"]
    assert [each.verdict for each in found] == ([Verdict.WARNING] * len(told) or [Verdict.OK])
    assert [each.detail.rpartition("the cluster's: ")[2] for each in found if each.advice] == told


def test_hostile_values_reach_no_shell(fake: FakeSlurm, look: Look, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    look(scheduler="slurm", resources={"constraint": f"$(touch {trap}); `touch {trap}` & touch {trap}"})
    assert not trap.exists()


@pytest.mark.smoke
@pytest.mark.slurm
def test_a_real_cluster(cluster: slurm.Cluster, look: Look, tmp_path: Path) -> None:
    host = {"type": "ssh", **cluster.profile["host"]}
    found = look(host=host, scheduler="slurm", resources={"partition": "debug", "account": "lab"})
    assert verdicts(found) == dict.fromkeys(SLURM, "ok")
    assert found["submission"].detail == "sbatch --test-only takes the profile's jobs"


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("resources", "failing", "option"),
    [
        ({"account": "nobody"}, ["association", "submission"], "account"),
        ({"partition": "nope"}, ["partition", "submission"], "partition"),
        ({"qos": "gold"}, ["association", "submission"], "qos"),
        ({"partition": "closed", "account": "lab"}, ["partition"], None),
        ({"partition": "closed"}, ["partition"], None),
        ({"partition": "down"}, ["partition"], None),
        ({"mem": "99G"}, ["submission"], None),
        ({"gpus": "9"}, ["submission"], None),
    ],
)
def test_wrong_resources_on_a_real_cluster(
    cluster: slurm.Cluster, look: Look, resources: dict[str, str], failing: list[str], option: str | None
) -> None:
    found = look(host={"type": "ssh", **cluster.profile["host"]}, scheduler="slurm", resources=resources)
    assert [check for check in SLURM if found[check].is_failure] == failing
    if option is not None:
        assert f"`resources.{option}`" in found["submission"].detail


def test_gpus_of_a_gres_list() -> None:
    assert parse_gpus("gpu:h100:4(S:0-3),gpu:h100:2") == (6, "h100")
    assert parse_gpus("gpu:a100:1,gpu:a40:1") == (2, None)
    assert parse_gpus("craynetwork:4") == (0, None)


@pytest.mark.parametrize("parse", [parse_partitions, parse_node_kinds, parse_qualities, parse_associations])
def test_parsers_pass_over_what_they_do_not_know(parse: Callable[[str], object]) -> None:
    assert not parse("")
    assert not parse("slurm_load_partitions: Unable to contact slurm controller\n\x00|||\n= = =\n")
