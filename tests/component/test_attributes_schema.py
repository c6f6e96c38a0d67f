"""The schema that Dagster's tools see is as strict as the component."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from dagster.components.list.list import list_all_components_schema
from dagster_shared.yaml_utils.sample_yaml import generate_sample_yaml
from pydantic import TypeAdapter, create_model

from dagster_slurm_components import SlurmScriptComponent
from dagster_slurm_components.component import attributes
from dagster_slurm_components.spec.schemas import definitions, shipped_definitions

RIGHT = {
    "defaults": {"resources": {"nodes": "{{ env('NODES') }}"}},
    "scripts": [
        {
            "payload": "train.py",
            "launcher": {"type": "torchrun", "nproc_per_node": 2},
            "resources": {"time": "01:00:00", "mem": "8G"},
            "assets": [{"key": "a", "automation_condition": "{{ dg.AutomationCondition.eager() }}"}],
            "profiles": {"local": {"args": ["x"]}},
        }
    ],
    "include": ["jobs/*.yaml"],
}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("scrpts", {"scrpts": []}),
    ("torchrn", {"scripts": [{"payload": "a", "launcher": {"type": "torchrn"}}]}),
    ("zero", {"scripts": [{"payload": "a", "resources": {"nodes": "zero"}}]}),
    ("43200", {"scripts": [{"payload": "a", "resources": {"time": 43200}}]}),
    ("asets", {"scripts": [{"payload": "a", "asets": []}]}),
    ("dep", {"scripts": [{"payload": "a", "assets": [{"key": "a", "dep": []}]}]}),
    ("nods", {"defaults": {"resources": {"nods": 1}}}),
]


def test_the_shipped_file_is_what_the_models_make():
    assert shipped_definitions() == definitions(), "run `dg-slurm schema`"
    assert attributes.attributes_schema() == attributes.made_schema()


def test_without_the_shipped_file_it_is_made(monkeypatch):
    shipped = attributes.attributes_schema()
    monkeypatch.setattr(attributes, "shipped_definitions", lambda: None)
    attributes.attributes_schema.cache_clear()
    try:
        assert attributes.attributes_schema() == shipped
    finally:
        attributes.attributes_schema.cache_clear()


def test_it_stands_alone():
    text = json.dumps(alone())
    references = set(re.findall(r'"\$ref": "([^"]*)"', text))
    assert references
    assert all(reference.startswith("#/$defs/") for reference in references)
    assert '"$ref"' not in json.dumps(within()["properties"])


def test_the_model_takes_any_mapping():
    assert attributes.Attributes.model_validate({"scrpts": [], 3: 4}).root == {"scrpts": [], 3: 4}


def alone() -> dict[str, Any]:
    model = SlurmScriptComponent.get_model_cls()
    assert model is not None
    return model.model_json_schema()


def within() -> dict[str, Any]:
    """The schema as a part of the schema of all components, which editors use (`.dg/schema.json`)."""
    component = create_model("One", attributes=(SlurmScriptComponent.get_model_cls(), None))
    whole = TypeAdapter(component | int).json_schema()
    return {**whole["$defs"]["Attributes"], "$defs": whole["$defs"]}


@pytest.mark.parametrize("make", [alone, within])
def test_schema_is_valid_and_takes_right_attributes(make):
    jsonschema.Draft202012Validator.check_schema(make())
    jsonschema.Draft202012Validator(make()).validate(RIGHT)


@pytest.mark.parametrize("make", [alone, within])
@pytest.mark.parametrize(("word", "wrong"), WRONG)
def test_schema_refuses_wrong_words(make, word, wrong):
    errors = list(jsonschema.Draft202012Validator(make()).iter_errors(wrong))
    assert errors
    assert any(word in error.message for error in errors)


def test_other_packages_add_launchers_and_environments(monkeypatch):
    made = {"type": "object", "description": "made anew"}
    monkeypatch.setattr(attributes, "entry_points", lambda group: ["one"] if "launchers" in group else [])
    monkeypatch.setattr(attributes, "made_schema", lambda: made)
    attributes.attributes_schema.cache_clear()
    try:
        assert alone() == made
    finally:
        attributes.attributes_schema.cache_clear()


def test_dagster_makes_an_example_and_its_own_schema_of_it():
    assert "scripts:" in generate_sample_yaml("x.Y", alone())
    whole = list_all_components_schema(entry_points=False, extra_modules=("dagster_slurm_components",))
    assert "SlurmScriptComponent" in json.dumps(whole)
