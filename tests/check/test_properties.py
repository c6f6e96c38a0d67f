"""What models accept survives dump, schema and load; whatever is typed is right or gives errors with lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from dagster_slurm_components.spec.component import ComponentAttributes
from dagster_slurm_components.spec.environments import ENVIRONMENTS
from dagster_slurm_components.spec.hosts import HOSTS
from dagster_slurm_components.spec.launchers import LAUNCHERS
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.schemas import schemas
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.site import Site
from dagster_slurm_components.spec.source import parse_documents

SCHEMAS = {name.partition(".")[0]: json.loads(text) for name, text in schemas().items()}
ROOTS = {"script": Script, "profile": Profile, "site": Site}


def models() -> list[type[Model]]:
    """Return every model that a user's YAML can name."""
    found: list[type[Model]] = []
    waiting: list[type[Model]] = [Model]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if (
            model.model_fields
            and not model.__name__.startswith("_")
            and model.__module__.startswith("dagster_")
        ):
            found.append(model)
    return sorted(found, key=lambda model: model.__name__)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_field_has_a_description_and_examples_that_are_right(model):
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith((".", "?", ")")), name
        assert field.examples, name
        for example in field.examples:
            whole = {name: example}
            try:
                model.model_validate(whole)
            except ValidationError as exc:
                wrong = [error for error in exc.errors() if error["loc"][:1] == (name,)]
                assert not wrong, wrong


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_of_fields_that_exclude_each_other_none_is_set_by_itself(model):
    for name in {name for group in model.one_of for name in group}:
        assert model.model_fields[name].default in (None, PydanticUndefined), name


def described(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the properties of a schema with their places."""
    if isinstance(schema, dict):
        for name, item in (schema.get("properties") or {}).items():
            yield f"{path}/{name}", item
        for key, item in schema.items():
            yield from described(item, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from described(item, f"{path}/{index}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas_with_examples_that_they_accept(name):
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:dagster-slurm-components:{name}"
    for place, item in described(schema):
        for example in item.get("examples", []) if isinstance(item, dict) else []:
            part = {
                **{key: value for key, value in item.items() if key != "examples"},
                "$defs": schema["$defs"],
            }
            part = json.loads(json.dumps(part).replace('"#/properties', '"#/$defs/Root/properties'))
            part["$defs"] = {**part["$defs"], "Root": {"properties": schema.get("properties", {})}}
            errors = [error.message for error in jsonschema.Draft202012Validator(part).iter_errors(example)]
            assert not errors, (place, example, errors)


def test_no_schema_lets_unknown_keys_pass():
    for name, schema in SCHEMAS.items():
        for definition in [schema, *schema["$defs"].values()]:
            closed = (
                definition.get("additionalProperties") is False
                or "allOf" in definition
                or "then" in definition
            )
            assert closed or "properties" not in definition, (name, definition)


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]), min_size=1, max_size=8)


def values(model: type[Model]) -> st.SearchStrategy[dict[str, Any]]:
    """Return trees of a model: some of its fields, with their examples."""
    fields = {name: st.sampled_from(field.examples) for name, field in model.model_fields.items()}
    kind = {"type": fields.pop("type")} if "type" in fields else {}
    return st.fixed_dictionaries(kind, optional=fields)


def one_of(registry) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of([values(model) for model in registry.values()])


TREES = {
    "script": st.tuples(
        values(Script),
        st.fixed_dictionaries(
            {},
            optional={
                "resources": values(Resources),
                "launcher": one_of(LAUNCHERS),
                "environment": one_of(ENVIRONMENTS),
                "args": st.lists(WORDS, max_size=3),
                "env": st.dictionaries(st.sampled_from(["A", "_b", "C9"]), WORDS, max_size=2),
                "description": WORDS,
                "assets": st.just([{"key": "a/b", "deps": [["c", "d"]], "metadata": {"x": None}}]),
            },
        ),
    ).map(lambda pair: {**pair[0], **pair[1]}),
    "profile": st.tuples(
        values(Profile),
        st.fixed_dictionaries(
            {}, optional={"host": one_of(HOSTS), "resources": values(Resources), "env": st.just({"A": "ü"})}
        ),
    ).map(lambda pair: {**pair[0], **pair[1]}),
    "site": values(Site),
}


@pytest.mark.parametrize("name", TREES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_models_accept_survives_dump_schema_and_load(name, data):
    tree = data.draw(TREES[name])
    model = ROOTS[name]
    try:
        known = model.model_validate(tree)
    except ValidationError:
        return  # fields that exclude each other
    for dumped in (known.explicit(), known.model_dump(mode="json", exclude_none=True)):
        errors = [
            error.message for error in jsonschema.Draft202012Validator(SCHEMAS[name]).iter_errors(dumped)
        ]
        assert not errors
        text = yaml.safe_dump(dumped, sort_keys=False, allow_unicode=True)
        (document,) = parse_documents(text, "dumped.yaml")
        assert model.model_validate(document.data) == known


def edits(text: str) -> st.SearchStrategy[str]:
    """Return texts that differ from one in a few places, as while it is typed."""
    places = st.integers(0, len(text))
    bits = st.one_of(
        st.text(max_size=3),
        st.sampled_from(
            [
                "\n",
                "  ",
                "\t",
                ": ",
                "- ",
                "{",
                "}",
                "[",
                "]",
                "'",
                '"',
                "{{ ",
                " }}",
                "&a ",
                "*a",
                "!x ",
                "#",
            ]
        ),
        st.sampled_from(
            ["null", "yes", "1e3", "010", "12:00:00", "~", "<<: *a", "---\n", "type: x\n", "é", "\u2028"]
        ),
    )
    edit = st.tuples(places, st.integers(0, 12), bits)

    def apply(changes: list[tuple[int, int, str]]) -> str:
        result = text
        for place, length, bit in changes:
            result = result[:place] + bit + result[place + length :]
        return result

    return st.lists(edit, min_size=1, max_size=3).map(apply)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_edit_of_a_right_file_is_right_or_has_errors_with_lines(data, corpora, fresh_project):
    sample = data.draw(st.sampled_from(corpora["right"]))
    text = data.draw(edits(sample.content.decode()))
    file = fresh_project(sample.name, text.encode("utf-8", "surrogatepass"))
    for problem in check_project([file]).problems:
        assert problem.position is not None, problem
        assert 1 <= problem.position.line <= len(re.findall("[\n\r\x85\u2028\u2029]", text)) + 2, problem
        assert str(problem)


def test_component_attributes_are_the_same_everywhere():
    assert set(ComponentAttributes.model_fields) == {"defaults", "scripts", "include", "external"}
    attributes = SCHEMAS["defs"]["then"]["properties"]["attributes"]
    assert set(attributes["properties"]) == set(ComponentAttributes.model_fields)
