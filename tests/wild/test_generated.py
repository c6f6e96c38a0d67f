"""Whatever `dg-slurm check` accepts loads in Dagster, can be planned and rendered; what it refuses has a line.

Sixty made-up projects a run of the suite, always the same. `DAGSTER_SLURM_GENERATED=3000` asks for so many, new ones
each time: before a change to the words of YAML, and to their checks, is merged.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.api import create_execution_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project_fixture import make_project

from dagster_slurm_components.cli.preview import preview
from dagster_slurm_components.component.script_component import SlurmScriptComponent
from dagster_slurm_components.spec.launchers import LAUNCHERS
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.partition_mappings import PARTITION_MAPPINGS
from dagster_slurm_components.spec.partitions import BACKFILLS, PARTITIONS
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.retry import Retry

MANY = os.environ.get("DAGSTER_SLURM_GENERATED")
PAYLOADS = ("t.sh", "Ein Bild.py", "data[1].sh", "ü'\"$x.R", "./t.sh", "-n.py")
PROFILES = {
    "local": {},
    "cluster": {
        "scheduler": "slurm",
        "workdir": "/scratch/a b",
        "resources": {"partition": "gpu", "time": "00:10:00"},
        "env": {"LANG": "C"},
    },
}


def some(
    fields: dict[str, st.SearchStrategy[Any]], **always: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(always, optional=fields)


def usually(
    right: st.SearchStrategy[Any] | list[Any], odd: st.SearchStrategy[Any] | list[Any]
) -> st.SearchStrategy[Any]:
    """Return what is right, and one time in fifty a slip: projects of many slips are refused at once."""
    right, odd = (
        each if isinstance(each, st.SearchStrategy) else st.sampled_from(each) for each in (right, odd)
    )
    return st.integers(0, 49).flatmap(lambda number: odd if number == 49 else right)


WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=6).filter(str.strip),
    st.sampled_from(
        ["~", "null", "on", "1e3", "0x1F", "2025-01-01", "'", '"', "$HOME", "`x`", "%", "{", "}}", "🙂"]
    )
    | st.sampled_from(["#SBATCH", "- a", "a: b", "&a", "*a", "!x", "-n", "..."]),
)
# What a template stands for is known only when it is rendered, so that it is not where it may be wrong or there twice.
TEMPLATES = st.sampled_from(
    ["{{ 1 + 1 }}", "{{ project_root }}", "{{ profile.name }}", "a {{ env('HOME') }}"]
)
TEXTS = WORDS | st.sampled_from(["", " ", "a\nb", "\t", "\r\n", "\u2028", "{{ partition.key }}", 7, -1, 2025])
SCALARS = st.one_of(
    TEXTS, st.integers(-3, 3), st.integers(), st.floats(), st.booleans(), st.none(), st.just([]), st.just({})
)
"""What a person may leave without quotes."""
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2)
)
# Few, so that keys meet each other: some fold into one name of Dagster's, or into a word of its own.
KEYS = usually(
    [
        "a",
        "b",
        "a/b",
        "a_b",
        "a.b",
        "a-b",
        "a__b",
        "a/b/c",
        "arg-dict",
        "arg/dict",
        "input.arg_dict",
        "1",
        7,
        "x" * 120,
        ".",
        "..",
        "-",
        "_",
        "A",
        "a/type",
        "c",
        "d",
        "e",
        "f",
        ["a", "b"],
        ["a"],
    ],
    ["type", "class", "ä", "a b", "a//b", "/a", "a/", ""],
)


def examples(model: type[Model]) -> st.SearchStrategy[Any]:
    """Return trees of a model: a few of its fields, with their examples."""
    fields = {name: usually(field.examples, SCALARS) for name, field in model.model_fields.items()}
    kind = {"type": fields.pop("type")} if "type" in fields else {}
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True) if fields else st.just([])
    return chosen.flatmap(lambda names: st.fixed_dictionaries(kind | {name: fields[name] for name in names}))


DATES = {
    "hourly": (["2025-01-01-00:00", "2025-03-30-02:30", "1969-12-31-23:00"], ["2025-01-01", "", 5]),
    "time_window": (["2025-01-01", "2025-03-30"], ["2025", "0001-01-01"]),
    "": (
        ["2025-01-01", "1969-12-31", "2400-02-29"],
        ["0001-01-01", "9999-12-31", "1-1-1", "2025-02-30", 2025],
    ),
}
CRONS = usually(
    [
        "0 0 * * *",
        "@daily",
        "0 0 1 1 *",
        "0 0 L * *",
        "0 0 * * mon",
        "0 0 29 2 *",
        "0 0 * * 5#2",
        "7 22 ? jan-MAR 1,5",
        "@yearly",
    ],
    ["60 * * * *", "0 0 31 2 *", "* * * * * *", "@reboot", "a b c d e", "*/5 * * * *", "0 0 31 4 *"],
)
FORMATS = usually(["%Y-%m-%d", "%Y-%m-%d", "%F"], ["%Y", "%Y-%m-%d-%H:%M", "x", "%", "%Q", "%d", "%s"])


def timed(kind: str) -> st.SearchStrategy[Any]:
    dates = usually(*DATES.get(kind, DATES[""]))
    offsets = [name for name in PARTITIONS[kind].model_fields if name.endswith("_offset")]
    window = {"fmt": FORMATS, "cron_schedule": CRONS} if kind == "time_window" else {}
    zones = usually(["Europe/Vienna", "UTC", "GMT+5", "Asia/Kathmandu"], ["Nowhere", "Europe", "localtime"])
    fields = {"end_date": dates, "timezone": zones} | {
        name: usually([0, 1, "5"], [60, -1]) for name in offsets
    }
    return some(fields, type=st.just(kind), start_date=dates, **window)


PARTITIONED = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("static"),
            "partition_keys": usually(
                st.lists(WORDS | st.integers(2019, 2021), max_size=3, min_size=1, unique_by=str),
                st.lists(SCALARS, max_size=3),
            ),
        }
    ),
    *(timed(kind) for kind in PARTITIONS if kind != "static"),
    st.sampled_from(
        ["{{ dg.StaticPartitionsDefinition(['a']) }}", "{{ dg.DailyPartitionsDefinition('2025-01-01') }}"]
    ),
)
CONDITIONS = usually(
    ["{{ dg.AutomationCondition.eager() }}", "{{ dg.AutomationCondition.on_cron('@daily') }}"],
    ["eager"],
)
TAGS = st.dictionaries(
    usually(["tier", "a/b", "dagster/x", "dagster/kind/x"], TEXTS),
    usually(["a", "", 1, 0.5, True], SCALARS),
    max_size=2,
)
ATTRIBUTES = {
    "description": TEXTS | TEMPLATES,
    "group_name": usually(["g", "g/h", "1", "type"], ["g-h", ""]),
    "owners": st.lists(usually(["team:ml", "ada@example.org", "team:a b"], ["team:", "ada", 5]), max_size=2),
    "tags": TAGS,
    "kinds": st.lists(usually(["r", "python", "uv", "a-b"], TEXTS), max_size=4),
    "metadata": st.dictionaries(WORDS, NESTED, max_size=2),
    "code_version": WORDS,
    "skippable": usually(st.booleans(), SCALARS),
    "automation_condition": CONDITIONS,
}
ASSET = some({**ATTRIBUTES, "deps": st.lists(KEYS, max_size=3)}, key=KEYS)
CHECK = some(
    {
        "blocking": st.booleans(),
        "description": TEXTS | TEMPLATES,
        "additional_deps": st.lists(KEYS, max_size=2),
        "metadata": st.dictionaries(WORDS, NESTED, max_size=1),
        "automation_condition": CONDITIONS,
    },
    name=usually(["ok", "b", "v1.0", "b_c", "b.c", "type", "class"], ["o-k", ""]),
)
OP = some(
    {
        "name": usually(["op", "a_b", "type", "o p", "1", "ä"], SCALARS),
        "description": TEXTS | TEMPLATES,
        "tags": st.dictionaries(
            usually(["dagster/priority", "a/b", "x"], TEXTS), usually(["1", 1], NESTED), max_size=2
        ),
        "pool": usually(["p", "p/q"], ["p q"]),
        "retry_policy": some(
            {
                "max_retries": usually([0, 3], [-1]),
                "backoff": usually(["LINEAR", None], ["linear"]),
                "jitter": st.sampled_from(["FULL", None]),
            },
            delay=usually([0, 1, 0.5, 1e9], SCALARS),
        ),
        "backfill_policy": st.one_of(*map(examples, BACKFILLS.values())),
    }
)
HOW = {
    "args": st.lists(usually(TEXTS | TEMPLATES, SCALARS), max_size=3),
    "env": st.dictionaries(
        usually(["A", "_b", "PATH", "HOME"], TEXTS), usually(TEXTS | TEMPLATES, SCALARS), max_size=2
    ),
    "files": st.lists(
        usually(["t.sh", "*.sh", "data[1].sh", "**", "/etc/hostname", "."], ["../**", "nowhere/*"]),
        max_size=2,
    ),
    "launcher": st.one_of(*map(examples, LAUNCHERS.values())),
    "resources": examples(Resources),
    "retry": examples(Retry),
    "array": usually(some({"max_parallel": st.integers(1, 3), "keys_per_task": st.integers(1, 3)}), SCALARS),
    "requeue_on_timeout": usually([0, 2], [-1]),
}
XS = usually(["a", "A-1", 0, 1, 2, "0x1F", True, 0.5], WORDS)
PAYLOAD = usually(list(PAYLOADS), ["nowhere.py", "", "sub"])
MORE = {
    "name": usually(["train", "a_b", "type", "ä ö", "1", "a b", "a/b"], SCALARS),
    "description": TEXTS | TEMPLATES,
    "op": OP,
}
PROFILED = st.dictionaries(st.sampled_from(["local", "cluster"]), some(HOW), max_size=1)


def assets(tree: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a script with assets and checks that fit each other, as they must."""

    def fitted(drawn: tuple[list[dict[str, Any]], bool, list[dict[str, Any]]]) -> dict[str, Any]:
        made, partitions, checks = drawn
        made = [asset | ({"partitions_def": None} if partitions else {}) for asset in made]
        fitting = [check | {"asset": made[-1]["key"]} for check in checks]
        return tree | {"assets": made} | ({"checks": fitting} if fitting else {})

    several = st.lists(ASSET, min_size=1, max_size=3, unique_by=lambda asset: str(asset["key"]))
    return st.tuples(several, st.booleans(), st.lists(CHECK, max_size=2)).map(fitted)


SCRIPT = st.one_of(
    some(HOW | MORE | {"can_subset": st.booleans()}, payload=PAYLOAD).flatmap(assets),
    some(HOW | MORE, command=st.lists(usually(TEXTS | TEMPLATES, SCALARS), min_size=1, max_size=3)).flatmap(
        assets
    ),
    some({"profiles": PROFILED, "leave": st.booleans()}, payload=PAYLOAD).flatmap(assets),
    st.fixed_dictionaries(
        {
            "payload": PAYLOAD,
            "matrix": st.fixed_dictionaries({"x": st.lists(XS, min_size=1, max_size=3, unique_by=str)}),
            "args": st.just(["--x={{ matrix.x }}", "{{ matrix.x }}"]),
            "assets": st.just([{"key": "m/x{{ matrix.x }}"}]),
        }
    ),
)


def with_partitions(drawn: tuple[dict[str, Any], list[Any], list[Any]]) -> dict[str, Any]:
    """Return a project whose scripts have one of a few partitions each, and whose dependencies are mapped now and then.

    What a template gives, the check can't compare with other partitions.
    """
    tree, partitions, mappings = drawn
    if any(isinstance(each, str) for each in partitions):
        del partitions[1:]
    for number, script in enumerate(tree["attributes"]["scripts"]):
        for asset in script["assets"]:
            if "partitions_def" in asset:
                asset["partitions_def"] = partitions[number % len(partitions)]
            for at, dep in enumerate(asset.get("deps", ())):
                if number < len(mappings) and mappings[number]:
                    asset["deps"][at] = {"asset": dep, "partition_mapping": mappings[number]}
    return tree


MAPPINGS = st.none() | st.one_of(*map(examples, PARTITION_MAPPINGS.values()))
DEFAULTS = some({name: HOW[name] for name in ("env", "args", "resources", "retry")} | {"op": OP})
POST = some(
    {"operation": st.just("merge"), "target": st.sampled_from(["*", "group:g"])},
    attributes=some(
        {name: ATTRIBUTES[name] for name in ("group_name", "owners", "kinds", "automation_condition")}
    ),
)
DEFS = st.tuples(
    some(
        # Dagster reads and renders it by itself, and tells of texts that are numbers to YAML or to a template.
        {"post_processing": st.fixed_dictionaries({"assets": st.lists(POST, max_size=1)})},
        type=st.just("dagster_slurm_components.SlurmScriptComponent"),
        attributes=some(
            {"defaults": DEFAULTS, "external": st.lists(KEYS, max_size=2)},
            scripts=st.lists(SCRIPT, min_size=1, max_size=3),
        ),
    ),
    st.lists(PARTITIONED, min_size=1, max_size=2),
    st.lists(MAPPINGS, max_size=2),
).map(with_partitions)


def holds(root: Path, tree: dict[str, Any], *, flow: bool | None) -> bool:
    """Check a project, and load, plan and render it if that finds no error; return whether it does so."""
    project = make_project(root)
    for name in PAYLOADS:
        project.write(name, "")
    for name, profile in PROFILES.items():
        project.profile(name, yaml.safe_dump(profile))
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=bool(flow), default_flow_style=flow)
    (project.defs / "defs.yaml").write_text(text, "utf-8", "surrogatepass")
    report = check_project([project.root])
    for problem in report.problems:
        assert problem.position is not None, problem
        assert str(problem)
    if report.count("error"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with project.tree() as components:
            definitions = components.build_defs()
            dg.Definitions.validate_loadable(definitions)
            create_execution_plan(definitions.resolve_implicit_global_asset_job_def())
            loaded = components.get_all_components(of_type=SlurmScriptComponent)
    for script in [script for component in loaded for script in component.scripts]:
        for name in PROFILES:
            preview(script.entry.resolve(load_profile(name, start=script.folder)), script.name)
    return True


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for projects."""
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@settings(
    max_examples=int(MANY or 60), derandomize=not MANY, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(tree=DEFS, flow=st.sampled_from([True, False, None]))
def test_what_check_accepts_loads_and_renders(tree: dict[str, Any], flow: bool | None, folders: Path) -> None:
    try:
        holds(folders / "p", tree, flow=flow)
    finally:
        shutil.rmtree(folders / "p", ignore_errors=True)
