"""`#SBATCH` lines are read as sbatch reads them, and a payload's own ones are its resources."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.slurm.header import render_header
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ScriptEntry, resolve_script
from dagster_slurm_components.spec.resources import FLAGS, OWNED, Resources
from dagster_slurm_components.spec.sbatch import directives, sbatch_layer

LINES = {
    "-N2": ["--nodes=2"],
    "-N 2 -n 4": ["--nodes=2", "--ntasks=4"],
    "--mem=4G": ["--mem=4G"],
    "--mem 4G": ["--mem=4G"],
    "--array=0-9%2": ["--array=0-9%2"],
    "--gres=gpu:a100:2": ["--gres=gpu:a100:2"],
    "-o 'a b.log' -e \"it's.log\"": ["--output=a b.log", "--error=it's.log"],
    r'--job-name="say \"hi\" #1"': ['--job-name=say "hi" #1'],
    r"-J a\ b": ["--job-name=a b"],
    "--mail-user=user@example.org # who": ["--mail-user=user@example.org"],
    "--dependency=afterok:12:13?afterany:14": ["--dependency=afterok:12:13?afterany:14"],
    "--export=ALL,A=1": ["--export=ALL,A=1"],
    "--wrap 'echo hi; ls'": ["--wrap=echo hi; ls"],
    "--exclusive --requeue": ["--exclusive", "--requeue"],
    "--exclusive=user": ["--exclusive=user"],
    "--nice -O": ["--nice", "--overcommit"],
    "-HOt 5": ["--hold", "--overcommit", "--time=5"],
    "-sn3": ["--oversubscribe=n3"],
    "-k -t5": ["--no-kill", "--time=5"],
    "--cpus-per-t=3 --tasks-per-node=2": ["--cpus-per-task=3", "--ntasks-per-node=2"],
    "--mem-per-cpu=1G --cpus=2": ["--mem-per-cpu=1G", "--cpus=2"],
    "--open-mode=append\r": ["--open-mode=append"],
    "--comment=": ["--comment="],
    "--comment 'no end": ["--comment=no end"],
    "-Z": ["---Z"],
    "hetjob": ["--hetjob"],
    "--nodes": ["--nodes"],
    "#": [],
    "": [],
}


@pytest.mark.parametrize(("line", "options"), LINES.items())
def test_a_line(line: str, options: list[str]) -> None:
    found = directives(f"#!/bin/bash\n#SBATCH {line}\n", "a.sbatch")
    assert [str(each) for each in found] == options
    assert all(each.position.line == 2 for each in found)


def test_lines_below_the_first_command_and_other_comments_are_not_heeded() -> None:
    text = "#!/bin/bash\n\n # SBATCH --nodes=1\n#SBATCH -n\n##SBATCH --mem=1G\n#SBATCH 3\n  true\n#SBATCH --nodes=9\n"
    (only,) = directives(text, "a.sbatch")
    assert (str(only), str(only.position)) == ("--ntasks=3", "a.sbatch:4:9")


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
NAMES = sorted(name.replace("_", "-") for name in {*Resources.model_fields, *OWNED} if name != "requeue")


@given(st.lists(st.tuples(st.sampled_from(NAMES), TEXT), unique_by=lambda pair: pair[0]))
def test_what_is_rendered_is_read_back(options: list[tuple[str, str]]) -> None:
    found = directives(render_header(options), "a.sbatch")
    assert [(each.option.replace("_", "-"), each.value) for each in found] == options


@given(st.text(alphabet=f"{string.printable}é#SBATCH \\\"'-="))
def test_no_text_is_too_odd(text: str) -> None:
    whole = f"#SBATCH {text}"
    lines = whole.split("\n")
    for each in directives(whole, "a.sbatch"):
        assert lines[each.position.line - 1][each.position.column - 1 :]


def test_all_options_of_resources_come_back_as_they_were() -> None:
    values = {name: field.examples[0] for name, field in Resources.model_fields.items() if field.examples}
    del values["mem_per_cpu"], values["mem_per_gpu"]
    asked = Resources.model_validate(values)
    read = dict(each.resource for each in directives(render_header(asked.sbatch_options()), "a.sbatch"))
    assert Resources.model_validate(read) == asked


def test_each_flag_stands_alone() -> None:
    for flag in FLAGS & {name.replace("_", "-") for name in {*Resources.model_fields, *OWNED}}:
        assert [str(each) for each in directives(f"#SBATCH --{flag}\n#SBATCH -n3", "a")] == [
            f"--{flag}",
            "--ntasks=3",
        ]


def resolved(tmp_path: Path, text: str, name: str = "old.sbatch", **script: object) -> dict[str, object]:
    (tmp_path / name).write_text(text)
    layer = Layer("script", {"payload": name, **script}, lambda path: None, tmp_path)
    defaults = Layer("defaults", {"resources": {"account": "defaults_account"}}, lambda path: None, tmp_path)
    profile_layer = Layer("profile", {"resources": {"partition": "gpu", "qos": "normal"}}, lambda path: None)
    profile = LoadedProfile("p", Profile(), (profile_layer,), tmp_path)
    done = resolve_script(ScriptEntry(layer, defaults, tmp_path), profile)
    return done.script.resources.model_dump(exclude_none=True)


BATCH = """#!/bin/bash
#SBATCH --job-name=old -o out.log -e err.log --open-mode=append
#SBATCH -N 2 --time=00:10:00 --partition=mine
#SBATCH -A own
#SBATCH --no-requeue --nice
echo hi
"""


@pytest.mark.parametrize("name", ["old.sbatch", "old.slurm"])
def test_own_lines_win_over_the_profile_and_yaml_wins_over_them(tmp_path: Path, name: str) -> None:
    assert resolved(tmp_path, BATCH, name, resources={"nodes": 3}) == {
        "partition": "mine",
        "qos": "normal",
        "account": "defaults_account",
        "nodes": "3",
        "time": "00:10:00",
        "requeue": False,
        "nice": 100,
    }


def test_comments_of_other_payloads_are_comments(tmp_path: Path) -> None:
    assert resolved(tmp_path, BATCH, "old.sh") == {
        "partition": "gpu",
        "qos": "normal",
        "account": "defaults_account",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--flaot=3", "unknown key `flaot`"),
        ("--array=1-3", "`array` can't be set here"),
        ("--dependency=singleton", "`dependency` can't be set here"),
        ("--export=NONE", "`export` can't be set here"),
        ("--chdir=/tmp", "`chdir` can't be set here"),
        ("--time=soon", "'soon' is not a time"),
        ("--nodes", "nodes"),
        ("word", "unknown key `word`"),
    ],
)
def test_what_cannot_be_kept_is_a_mistake_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        resolved(tmp_path, f"#!/bin/bash\n#SBATCH -n1\n#SBATCH {line}\n")
    assert f"old.sbatch:3:9: {said}" in str(raised.value) or (
        said == "nodes" and "old.sbatch:3:9" in str(raised.value)
    )


def test_each_value_knows_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.sbatch").write_text(BATCH)
    layer = sbatch_layer(tmp_path / "a.sbatch")
    assert str(layer.position(("resources", "time"))) == f"{tmp_path / 'a.sbatch'}:3:14"
