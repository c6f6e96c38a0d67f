"""Hooks and resources of a script's step, named in YAML."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster.components.testing.utils import component_defs

from dagster_slurm_components import ComputeResource, SlurmScriptComponent

VARIABLES = """
import datetime

import dagster as dg


@dg.success_hook(required_resource_keys={"chat"})
def cheer(context):
    context.resources.chat.append(f"{context.op.name} is done")


@dg.failure_hook(required_resource_keys={"chat"})
def complain(context):
    context.resources.chat.append(f"{context.op.name}: {context.op_exception}")


@dg.template_var
def on_success():
    return cheer


@dg.template_var
def both():
    return {cheer, complain}


@dg.template_var
def a_date():
    return datetime.date(2026, 1, 1)
"""
MORE = "template_vars_module: .variables"


@pytest.fixture
def hooked(project):
    project.write("variables.py", VARIABLES)
    project.write("train.sh", ". pipes.sh\npipes_check a ok true\n")
    return project


def run(project, chat: list[str]) -> dg.ExecuteInProcessResult:
    resources = {"compute": ComputeResource(), "chat": dg.ResourceDefinition.hardcoded_resource(chat)}
    defs = dg.Definitions.merge(project.load(), dg.Definitions(resources=resources))
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.mark.parametrize("hooks", ['"{{ both }}"', '["{{ on_success }}"]', '"{{ on_success }}"'])
@pytest.mark.parametrize(
    "makes", ["assets: [{key: a}], checks: [{name: ok, asset: a}]", "checks: [{name: ok, asset: a}]"]
)
@pytest.mark.parametrize("place", ["script", "defaults"])
def test_hooks_run_with_their_resource(hooked, hooks, makes, place):
    op = f"{{hooks: {hooks}}}"
    defaults, own = (op, "{}") if place == "defaults" else ("{}", op)
    hooked.attributes(
        f"defaults: {{op: {defaults}}}\nscripts:\n  - {{name: train, payload: train.sh, op: {own}, {makes}}}",
        more=MORE,
    )
    chat: list[str] = []
    assert run(hooked, chat).success
    assert chat == ["train is done"]


def test_a_hook_of_failures_runs(hooked):
    hooked.write("train.sh", "echo no luck today >&2; exit 3\n")
    script = 'scripts: [{payload: train.sh, op: {hooks: "{{ both }}"}, assets: [{key: a}]}]'
    hooked.attributes(script, more=MORE)
    chat: list[str] = []
    assert not run(hooked, chat).success
    (told,) = chat
    assert told.startswith("a: ")
    assert "no luck today" in told


def test_what_is_no_hook_is_told_with_its_line(hooked):
    script = 'scripts:\n  - payload: train.sh\n    op:\n      hooks: ["{}"]\n    assets: [{{key: a}}]'
    hooked.attributes(script.format("{{ a_date }}"), more=MORE)
    assert hooked.mistakes() == ["6: expected a HookDefinition, the template gave date"]
    hooked.attributes(script.format("cheer"), more=MORE)
    assert hooked.mistakes() == ["6: expected a template, got the text 'cheer'"]


def test_a_resource_of_a_hook_that_is_not_there_is_refused_when_definitions_load(hooked):
    hooked.attributes(
        'scripts: [{payload: train.sh, op: {hooks: "{{ both }}"}, assets: [{key: a}]}]', more=MORE
    )
    defs = dg.Definitions.merge(hooked.load(), dg.Definitions(resources={"compute": ComputeResource()}))
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resource with key 'chat' required by hook"):
        dg.Definitions.validate_loadable(defs)


def test_a_backfill_policy_of_checks_alone_is_refused(hooked):
    script = "scripts:\n  - payload: train.sh\n    op: {backfill_policy: {type: single_run}}\n"
    hooked.attributes(f"{script}    checks: [{{name: ok, asset: a}}]")
    (told,) = hooked.mistakes()
    assert told == (
        "5: `backfill_policy` is for scripts that make assets, and this one only checks those of others"
    )


class Told(SlurmScriptComponent):
    """Tells a chat what it runs."""

    def execute(self, context, script):
        context.resources.chat.append(f"{script.name} begins")
        yield from super().execute(context, script)


def test_a_subclass_has_the_resources_that_are_named(project):
    script = {
        "command": ["true"],
        "op": {"required_resource_keys": ["chat"]},
        "assets": [{"key": "a"}],
    }
    chat: list[str] = []
    resources = {"compute": ComputeResource(), "chat": dg.ResourceDefinition.hardcoded_resource(chat)}
    made = component_defs(component=Told.from_attributes_dict(attributes={"scripts": [script]}))
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions.merge(
            made, dg.Definitions(resources=resources)
        ).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance).success
    assert chat == ["a begins"]
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resource with key 'chat' required by op 'a'"):
        dg.Definitions.validate_loadable(made)
