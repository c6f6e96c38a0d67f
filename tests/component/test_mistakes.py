"""What a user is told: each mistake once, with its file and line, and all of them together."""

from __future__ import annotations

import pytest

from .conftest import mistakes

ONE = "payload: train.py\nassets: [{key: a}]\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("payload: trian.py\nassets: [{key: a}]", "4: no file matches 'trian.py'"),
        (
            "payload: train.py\nassets: [{key: a}]\nlauncher: {type: torchrn}",
            "6: unknown launcher type `torchrn`",
        ),
        (
            "payload: train.py\nassets: [{key: a}]\nresources: {time: 12:00:00}",
            "6: expected a time in quotes",
        ),
        ("payload: train.py\nassets: [{key: a}]\nfiles: [nothing*.txt]", "6: no file matches 'nothing*.txt'"),
        ("payload: train.py", "4: the script makes no asset"),
        ("assets: [{key: a}]", "4: "),
        ("payload: train.py\nassets: [{key: a}]\nchecks: [{name: c, asset: b}]", "6: `b` is not an asset"),
        (
            "payload: train.py\nassets: [{key: a}]\nprofiles: {local: {payload: other.py}}",
            "6: no file matches 'other.py'",
        ),
        ("payload: train.py\nassets: [{key: a}, {key: a}]", "5: the asset `a` is declared twice"),
        ("payload: train.py\nlauncher: {nproc: 2}\nassets: [{key: a}]", "5: unknown key `nproc`"),
        (
            'payload: train.py\nassets:\n  - key: a\n    automation_condition: "{{ 3 }}"',
            "7: expected a template, got the number 3",
        ),
        (
            'payload: train.py\nassets:\n  - key: a\n    automation_condition: "{{ dg.FreshnessPolicy }}"',
            "7: expected an AutomationCondition, the template gave",
        ),
        (
            "payload: train.py\nassets:\n  - key: a\n    description: \"{{ env('NOT_SET_ANYWHERE') }}\"",
            "7: the environment variable `NOT_SET_ANYWHERE` is not set",
        ),
        (
            'payload: train.py\nassets:\n  - key: a\n    description: "{{ nothing.here }}"',
            "7: the template can't be rendered: 'nothing' is undefined",
        ),
        (
            "payload: train.py\nassets:\n  - key: a\n    partitions_def: {type: daily, start_date: soon}",
            "7: ",
        ),
    ],
)
def test_one_mistake_one_problem(project, script, expected):
    project.script(script)
    (told,) = project.mistakes()
    assert told.startswith(expected)


def test_all_mistakes_at_once(project):
    project.write("jobs/one.yaml", "payload: ../train.py\nassets: [{key: b}]\nbla: 1\n")
    project.write("jobs/two.yaml", "payload: [\n")
    project.attributes(
        """
        defaults: {resorces: {nodes: 1}}
        include: ["jobs/*.yaml", "nothing/*.yaml"]
        scripts:
          - payload: trian.py
            launcher: {type: torchrn}
            assets: [{key: a}]
          - {payload: train.py, assets: [{key: c}]}
        """
    )
    error = mistakes(project.root / "defs")
    assert [problem.kind for problem in error.problems] == [
        "unknown_key",
        "no_file",
        "no_file",
        "unknown_type",
        "unknown_key",
        "syntax",
    ]
    text = str(error)
    assert text.startswith("6 mistakes in YAML\n")
    assert "did you mean `resources`?" in text
    assert "launcher: {type: torchrn}\n" in text, "the offending line is shown"


def test_a_mistake_in_the_defaults_is_told_once(project):
    scripts = "".join(f"  - {{payload: train.py, assets: [{{key: a{n}}}]}}\n" for n in range(5))
    project.attributes(
        f"defaults: {{resources: {{nodes: zero}}, launcher: {{type: torchrn}}}}\nscripts:\n{scripts}"
    )
    assert project.mistakes() == ["3: 'zero' is not a number of nodes", "3: unknown launcher type `torchrn`"]


def test_two_scripts_of_one_name_and_one_asset(project):
    project.attributes(
        """
        scripts:
          - {payload: train.py, name: one, assets: [{key: a}]}
          - {payload: train.py, name: one, assets: [{key: a}]}
        """
    )
    first, second = sorted(project.mistakes())
    assert first.startswith("6: the asset `a` is declared twice; the first is in ")
    assert "defs.yaml:5:" in first
    assert second == "6: two scripts are named `one`"


def test_matrix_whose_cells_are_alike(project):
    project.script("{payload: train.py, name: same, assets: [{key: a}], matrix: {n: [1, 2]}}")
    assert sorted(project.mistakes()) == [
        "4: the asset `a` is declared twice",
        "4: two scripts are named `same`",
    ]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("scripts: {payload: train.py}", "3: expected a list"),
        ("scripts: [train.py]", "3: expected a mapping"),
        ("script: []", "3: unknown key `script`"),
        ("include: jobs/*.yaml", "3: expected a list"),
        (
            "defaults: {assets: [{key: a}]}\nscripts: [{payload: train.py, assets: [{key: a}]}]",
            "3: `assets` can't",
        ),
    ],
)
def test_wrong_attributes(project, attributes, expected):
    project.attributes(attributes)
    assert any(told.startswith(expected) for told in project.mistakes())
