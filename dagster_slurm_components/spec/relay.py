"""Growing files of a job that come to Dagster's machine while it runs, by the names that a user gives them."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from dagster_slurm_components.spec.base import DURATION, Alone, Duration, Text, duration_seconds
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.outputs import OUTPUT_NAME, Output, OutputName, PayloadPath
from dagster_slurm_components.spec.place import Locate
from dagster_slurm_components.spec.problems import Problem
from dagster_slurm_components.spec.slurm_values import Memory
from dagster_slurm_components.spec.templates import is_template
from dagster_slurm_components.units import parse_size

NEWS = "{}"
"""The argument of a command for which the files and folders stand that have changed."""
BUILT_IN: Mapping[str, tuple[str, ...]] = {"wandb": ("wandb", "sync", "--include-synced", NEWS)}
"""What is run for a name that says no `run`. Without that option wandb (0.31) leaves a run out that was synced before,
and so all that has come since."""
COMPLAINTS: Mapping[str, str] = {"wandb": "wandb: ERROR"}
"""What a program says, by its name, that ends with 0 though it did not work (wandb 0.31). Of a file that still grows it
says so, too, when the last record is not complete."""


def _words(given: Any) -> Any:
    """Read a line as a shell would divide it into words; nothing else of a shell is in it."""
    if not isinstance(given, str) or is_template(given):
        return [given] if isinstance(given, str) else given
    try:
        return shlex.split(given)
    except ValueError as error:
        raise mistake(
            f"{given!r} is no command: {error}", "close the quotes, or write a list", "command"
        ) from None


Command = Annotated[
    list[Text],
    BeforeValidator(_words),
    WithJsonSchema({"type": ["array", "string"], "items": {"type": ["string", "integer"]}}),
]


def _files(given: Any) -> Any:
    """Refuse a time that stands alone: it is a misspelled `every`, and no path."""
    if isinstance(given, str) and DURATION.fullmatch(given):
        raise mistake(f"{given!r} is a time, and no path", "did you mean `every`?", "path")
    return given


class RelayedFiles(Model):
    """What stands below a name of `relay`: which files, and what is done with them on Dagster's machine."""

    path: PayloadPath = required(
        "File, folder or glob pattern in the payload's working folder; `**` for any depth.",
        "wandb/offline-run-*",
    )
    run: Command | None = option(
        "Command, a line or a list of words, that Dagster's machine runs in the folder of the copies when something"
        " has come; `{}` stands for what changed. No shell reads it. The name `wandb` has"
        " `wandb sync --include-synced {}`; an empty list is none.",
        ["rsync", "-a", "{}", "backup:runs"],
    )
    every: Duration | None = option("How often is looked for more; else as often as for all.", "10s")
    max: Memory = option(
        "The most that is brought of a job; a number alone is mebibytes.", "5G", default="1G"
    )
    timeout: Duration = option("After how long the command is ended.", "10m", default="5m")

    @property
    def most(self) -> int:
        """The most bytes that are brought."""
        return parse_size(self.max, default_unit="M") or 0

    def command(self, name: str) -> tuple[str, ...]:
        """Return what is run for files of a name; nothing where they are only brought."""
        return BUILT_IN.get(name, ()) if self.run is None else tuple(self.run)


class Relay(Model):
    """Growing files that come to Dagster's machine while the job runs: by each name a path or pattern, or a mapping."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={"allOf": [{"propertyNames": {"pattern": f"^(?:{OUTPUT_NAME})$"}}]},
    )
    __pydantic_extra__: dict[OutputName, Annotated[RelayedFiles, Alone("path"), BeforeValidator(_files)]]

    every: Duration = option("How often is looked for more.", "30s", default="1m")

    @property
    def files(self) -> Mapping[str, RelayedFiles]:
        """What is brought, by name."""
        return self.__pydantic_extra__

    def seconds(self, name: str) -> float:
        """Return the seconds between two looks for files of a name."""
        return float(duration_seconds(self.files[name].every or self.every))


def relay_problems(
    relay: Relay, outputs: Mapping[str, Output], without_step: Mapping[str, bool], position_of: Locate
) -> Iterator[Problem]:
    """Yield what is relayed in vain, as no step of its own follows the job, or to the place of an output."""
    for key in (key for key, given in without_step.items() if given):
        message = (
            f"`relay` does nothing where `{key}` is set: no step follows each job that could bring files"
        )
        hint = f"take `{key}` or `relay` out; `profiles.NAME` can hold what is meant for one profile"
        yield Problem.at(position_of, ("relay",), message, hint, f"relay_{key}")
    if not relay.files:
        message = "`relay` names no files"
        yield Problem.at(position_of, ("relay",), message, "write `NAME: PATTERN` in it", "relay")
    taken = dict.fromkeys((name.lower() for name in outputs), "an output")
    for name in relay.files:
        if other := taken.get(name.lower()):
            message = (
                f"{other} is called `{name}`, too, but perhaps for its case, and both come to one folder"
            )
            yield Problem.at(position_of, ("relay", name), message, "rename one", "relay")
        taken[name.lower()] = "another one"
