"""`relay` as users write it: short and long, what is wrong with it, and where it can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.relay import Relay, RelayedFiles
from dagster_slurm_components.spec.resolve import ScriptEntry, resolve_script
from dagster_slurm_components.spec.rules import script_problems
from dagster_slurm_components.spec.script import Script


def relay(given: Any) -> Relay:
    made = Script.model_validate({"command": ["x"], "relay": given}).relay
    assert made is not None
    return made


def test_the_short_form_and_the_long_one() -> None:
    short = relay({"wandb": "wandb/offline-run-*", "tensorboard": "logs", "every": "30s"})
    assert short.files == {
        "wandb": RelayedFiles(path="wandb/offline-run-*"),
        "tensorboard": RelayedFiles(path="logs"),
    }
    assert short.seconds("wandb") == 30
    assert short.files["wandb"].command("wandb") == ("wandb", "sync", "--include-synced", "{}")
    assert short.files["tensorboard"].command("tensorboard") == ()
    assert short.files["wandb"].most == 2**30
    long = relay(
        {"wandb": {"path": "x", "run": "a 'b c' $(d) {}", "every": "10s", "max": "2G", "timeout": "1m"}}
    )
    assert long.files["wandb"].command("wandb") == ("a", "b c", "$(d)", "{}"), "no shell reads it"
    assert (long.seconds("wandb"), long.files["wandb"].most) == (10, 2 * 2**30)
    assert relay({"wandb": {"path": "x", "run": []}}).files["wandb"].command("wandb") == ()
    assert relay({"a": {"path": "x", "run": ["b", 3]}}).files["a"].run == ["b", "3"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": "/abs"}, "is not below the payload's folder"),
        ({"a": "x/../../y"}, "leads out of the payload's folder"),
        ({"a": {"path": "x", "rum": "y"}}, "unknown key `rum`"),
        ({"a": {"path": "x", "run": "it's"}}, "is no command: No closing quotation"),
        ({"a": {"path": "x", "run": {}}}, "run"),
        ({"a": "x", "every": 60}, "expected a duration"),
        ({"a": {"path": "x", "max": "much"}}, "is not a memory size"),
        ({"a": "x", "evry": "1m"}, "'1m' is a time, and no path"),
        ({"a/b": "x"}, "is not the name of an output"),
        ({"a": {"run": ["x"]}}, "path"),
        ("wandb", "relay"),
    ],
)
def test_mistakes(given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        relay(given)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"leave": True}, "`relay` does nothing where `leave` is set"),
        ({"array": {}}, "`relay` does nothing where `array` is set"),
        ({"outputs": {"LIVE": "x"}}, "an output is called `live`, too"),
        ({"relay": {"a": "x", "A": "y"}}, "another one is called `A`, too"),
        ({"relay": {"every": "1m"}}, "`relay` names no files"),
        ({}, ""),
    ],
)
def test_where_it_can_not_be(more: dict[str, Any], message: str) -> None:
    script = Script.model_validate(
        {"command": ["x"], "assets": [{"key": "a"}], "relay": {"live": "logs"}, **more}
    )
    told = [each.message for each in script_problems(script, lambda path: None)]
    assert [message in each for each in told] == ([True] if message else [])


def test_a_profile_may_say_more_of_a_short_form() -> None:
    profiles = {"local": {"relay": {"live": {"run": "echo {}"}, "every": "5s"}}}
    written = {"command": ["x"], "relay": {"live": "logs"}, "profiles": profiles}
    layer = Layer("script", written, lambda path: None)
    profile = LoadedProfile("local", Profile(), (), Path())
    found = resolve_script(ScriptEntry(layer, None, Path()), profile).script.relay
    assert found == relay({"live": {"path": "logs", "run": ["echo", "{}"]}, "every": "5s"})
