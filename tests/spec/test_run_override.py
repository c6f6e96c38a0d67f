"""What one run asks for, by config and tags: how it merges, and what is said of its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script
from dagster_slurm_components.spec.run_override import ASKED, NOTHING_ASKED, TAGS, RunOverride, run_override

WRITTEN: dict[str, Any] = {
    "payload": "a.sh",
    "args": ["--epochs", "3"],
    "env": {"A": "script", "B": "script"},
    "resources": {"mem": "8G", "nodes": 2},
    "launcher": {"type": "torchrun", "nproc_per_node": 2},
    "profiles": {"staging": {"env": {"B": "override"}, "resources": {"nodes": 1}}},
}


def resolved(run: RunOverride, folder: Path, **more: Any) -> ResolvedScript:
    """Return the script above as it runs in staging."""
    (folder / "a.sh").touch()
    return resolve_script(
        ScriptEntry(Layer("script", {**WRITTEN, **more}, lambda path: None, folder), None, folder),
        LoadedProfile("staging", Profile(), (), folder, run=run),
    )


def tagged(**tags: str) -> dict[str, str]:
    """Return tags by what stands behind the prefix, with `__` for a dot."""
    return {TAGS + name.replace("__", "."): value for name, value in tags.items()}


@pytest.mark.parametrize(
    ("config", "tags", "expected"),
    [
        ({"resources": {"mem": "64G"}}, {}, {"resources": {"mem": "64G", "nodes": "1"}}),
        ({"resources": {"mem_per_cpu": "1G"}}, {}, {"resources": {"mem_per_cpu": "1G", "nodes": "1"}}),
        ({"resources": {"nodes": None}}, {}, {"resources": {"mem": "8G"}}),
        ({"args": ["-x", 1]}, {}, {"args": ["-x", "1"]}),
        ({"env": {"B": "run"}}, {}, {"env": {"A": "script", "B": "run"}}),
        ({"launcher": {"nproc_per_node": 4}}, {}, {"launcher": {"type": "torchrun", "nproc_per_node": 4}}),
        ({"launcher": {"type": "srun"}}, {}, {"launcher": {"type": "srun"}}),
        ({}, tagged(resources__mem="64G"), {"resources": {"mem": "64G", "nodes": "1"}}),
        (
            {},
            tagged(resources__cpus_per_task="4"),
            {"resources": {"mem": "8G", "nodes": "1", "cpus_per_task": 4}},
        ),
        ({}, tagged(args="[--epochs, 20]"), {"args": ["--epochs", "20"]}),
        ({}, tagged(env__LIST="[1, 2]"), {"env": {"A": "script", "B": "override", "LIST": "[1, 2]"}}),
        ({}, tagged(array__max_parallel="2"), {"array": {"max_parallel": 2}}),
        ({"env": {"A": "config"}}, tagged(env__A="tag", env__B="tag"), {"env": {"A": "config", "B": "tag"}}),
        ({}, {"dagster/priority": "3", "slurm/profile": "x"}, {}),
    ],
)
def test_it_lies_above_all_that_is_written(
    config: dict[str, Any], tags: dict[str, str], expected: dict[str, Any], tmp_path: Path
) -> None:
    script = resolved(run_override(config, tags), tmp_path).script.explicit()
    given = {name: script[name] for name in expected}
    assert {name: _without_nulls(value) for name, value in given.items()} == expected


def _without_nulls(value: Any) -> Any:
    """Return a mapping without what was taken away."""
    return (
        {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value
    )


def test_the_profile_of_the_config_wins_over_the_tags() -> None:
    assert run_override({}, tagged(profile="tag")).profile == "tag"
    assert run_override({"profile": "config"}, tagged(profile="tag")).profile == "config"
    assert run_override({"args": []}, tagged(profile="tag")).profile == "tag"
    assert run_override({}, {"dagster/priority": "1"}) is NOTHING_ASKED


def test_a_profile_that_begins_like_a_list_is_no_list() -> None:
    with pytest.raises(SpecError, match="expected the name of a profile"):
        run_override({}, {f"{TAGS}profile": "[a]"})
    with pytest.raises(SpecError, match="expected the name of a profile"):
        run_override({}, tagged(profile__a="b"))


def test_what_was_asked_for_is_told_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    run = run_override(
        {"env": {"TOKEN": "{{ env('TOKEN') }}"}, "profile": "staging"}, tagged(resources__mem="64G")
    )
    assert json.loads(run.figures[ASKED]) == {
        "profile": "staging",
        "resources": {"mem": "64G"},
        "env": {"TOKEN": "{{ env('TOKEN') }}"},
    }
    assert NOTHING_ASKED.figures == {}


def test_the_content_changes_with_what_a_run_asks_for_and_not_with_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(config: dict[str, Any]) -> str:
        return resolved(run_override(config, {}), tmp_path).content_digest()

    monkeypatch.setenv("TOKEN", "first")
    first = digest({"env": {"A": "{{ env('TOKEN') }}"}})
    monkeypatch.setenv("TOKEN", "second")
    assert digest({"env": {"A": "{{ env('TOKEN') }}"}}) == first
    assert len({first, digest({}), digest({"args": ["1"]}), digest({"env": {"A": "x"}})}) == 4


def test_a_partition_is_filled_in(tmp_path: Path) -> None:
    run = run_override({"args": ["{{ partition_key }}"]}, tagged(env__DAY="{{ partition_key }}"))
    script = resolved(run, tmp_path).at_partition({"partition_key": "2026-02-01"}, "").script
    assert (script.args, script.env["DAY"]) == (["2026-02-01"], "2026-02-01")


MISTAKES: list[tuple[dict[str, Any], dict[str, str], str]] = [
    (
        {"resources": {"mem": "64 GB"}},
        {},
        "the run's config, `resources.mem`: '64 GB' is not a memory size\n"
        "    write a whole number and K, M, G or T, such as 8G; a number alone is mebibytes",
    ),
    (
        {"resources": {"time": 45000}},
        {},
        "the run's config, `resources.time`: expected a time in quotes, got the number 45000",
    ),
    ({"args": ["--rate", 0.1]}, {}, "the run's config, `args.1`: expected text, got the number 0.1"),
    (
        {"environment": {"type": "uv", "project": "a", "requirements": "b"}},
        {},
        "the run's config, `environment.requirements`: `requirements` and `project` exclude each other",
    ),
    (
        {"env": {"A": "{{ env('NOT_THERE') }}"}},
        {},
        "the run's config, `env.A`: the environment variable `NOT_THERE` is not set",
    ),
    (
        {"resources": {"mem": "{{ partition_key }}"}},
        {},
        "the run's config, `resources.mem`: the partition is known only when the step runs",
    ),
    (
        {},
        tagged(resource__mem="1G"),
        "the run's tag `dagster-slurm/resource`: unknown key `resource`\n    did you mean `resources`?",
    ),
    (
        {},
        tagged(resources__memm="1G"),
        "the run's tag `dagster-slurm/resources.memm`: unknown key `memm`\n    did you mean `mem`?",
    ),
    (
        {},
        tagged(profil="x"),
        "the run's tag `dagster-slurm/profil`: unknown key `profil`\n    did you mean `profile`?",
    ),
    ({}, tagged(payload="x.sh"), "the run's tag `dagster-slurm/payload`: `payload` can't be set in a run"),
    ({}, tagged(resources="64G"), "the run's tag `dagster-slurm/resources`: expected a mapping"),
    ({}, tagged(resources="64G", resources__mem="1G"), "`dagster-slurm/resources`: expected a mapping"),
    ({}, tagged(args="[a"), "the run's tag `dagster-slurm/args`"),
    ({}, tagged(args="a"), "the run's tag `dagster-slurm/args`: expected a list, got the text 'a'"),
    (
        {},
        tagged(array__max_parallel="0"),
        "the run's tag `dagster-slurm/array.max_parallel`: expected a number",
    ),
]


@pytest.mark.parametrize(("config", "tags", "told"), MISTAKES)
def test_mistakes_name_the_tag_or_the_place_in_the_config(
    config: dict[str, Any], tags: dict[str, str], told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        run_override(config, tags)
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        run_override({"resources": {"mem": "x", "time": 1}}, {})
    assert len(caught.value.problems) == 2


def test_what_does_not_fit_what_is_written_is_told_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the run's config, `launcher\.mpi`: unknown key `mpi`"):
        resolved(run_override({"launcher": {"mpi": "pmix"}}, {}), tmp_path)
    where = resolved(run_override({}, tagged(resources__mem="64G")), tmp_path).position("resources", "mem")
    assert str(where) == "the run's tag `dagster-slurm/resources.mem`"
