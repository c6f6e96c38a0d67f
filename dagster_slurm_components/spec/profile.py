"""One deployment target: a host, a scheduler, a working folder, and defaults for all scripts."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, ValidationError, ValidationInfo, model_validator
from typing_extensions import Self

from dagster_slurm_components.spec.assets import Pool
from dagster_slurm_components.spec.base import (
    AboveZero,
    Duration,
    Env,
    Flag,
    Positive,
    Text,
    Umask,
    Variable,
    Word,
)
from dagster_slurm_components.spec.environments import ENVIRONMENTS, EnvironmentSpec
from dagster_slurm_components.spec.hosts import Host, LocalHost
from dagster_slurm_components.spec.launchers import Launcher
from dagster_slurm_components.spec.model import Model, details, mistake, option
from dagster_slurm_components.spec.place import KEY
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import Memory
from dagster_slurm_components.spec.templates import is_template
from dagster_slurm_components.units import parse_size


class DefaultEnvironment(Model):
    """A default environment: the fields of one, or, without a ``type``, those that all of them have."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _check_defaults(self, info: ValidationInfo) -> Self:
        rest = self.defaults()
        if "type" in rest:
            ENVIRONMENTS.validate(rest, info.context)
            return self
        common = [name for name in EnvironmentSpec.model_fields if name != "type"]
        unknown = [key for key in rest if key not in common]
        if unknown:
            hint = did_you_mean(unknown[0], [*common, *type(self).model_fields, "type"])
            message = f"unknown key `{unknown[0]}` in an environment without a `type`"
            error = details(mistake(message, hint, "unknown_key"), (unknown[0], KEY), rest[unknown[0]])
            raise ValidationError.from_exception_data("environment", [error])
        EnvironmentSpec.model_validate({"type": "any", **rest}, context=info.context)
        return self

    def defaults(self) -> dict[str, Any]:
        """Return the raw default environment."""
        return dict(self.model_extra or {})


class ProfileEnvironment(DefaultEnvironment):
    """Who makes environments in this profile, and the default environment of its scripts."""

    build: Literal["on_demand", "deployed"] = option(
        "`on_demand`: a step makes what is missing. `deployed`: it takes only what"
        " `dg-slurm env deploy` put there.",
        "deployed",
        default="on_demand",
    )


class Limits(Model):
    """What this profile may ask of a host and its scheduler."""

    queries_per_minute: AboveZero = option(
        "Queries of queue and accounting per minute, for all jobs together.", 2, default=2
    )
    burst: Positive = option("Queries that may follow each other at once after a quiet time.", 10, default=10)
    max_submit_jobs: Positive | None = option(
        "Jobs waiting or running at once; further ones wait in Dagster. By default no more plain processes run on"
        " this machine than it has cores; Slurm is not limited.",
        100,
    )
    file_operations_per_second: AboveZero = option(
        "File operations per second on the host at most, for all jobs of all processes; 100 running jobs"
        " need about 270, 1,000 need 2,700. Below what is needed, output comes later.",
        500,
        default=3000,
    )


class Retention(Model):
    """How long `dg-slurm clean`, `dg-slurm env prune` and `dg-slurm data prune` leave things alone."""

    success: Duration = option("Run directories of successful steps.", "0d", default="0d")
    failure: Duration = option("Run directories of failed steps.", "14d", default="14d")
    environments: Duration = option("Environments that no step used for so long.", "30d", default="30d")
    inputs: Duration = option("Inputs that no job used for so long.", "30d", default="30d")


class InputCache(Model):
    """The inputs of scripts that are kept on the host, for all runs together."""

    max: Memory | None = option(
        "How large they may be together; those that no job used for longest make room. A number alone is mebibytes.",
        "500G",
    )
    rate: Memory | None = option("The most bytes per second that fetching a URL takes.", "50M")
    fetches: Positive = option("How many URLs are fetched at once.", 4, default=4)

    @property
    def most(self) -> int | None:
        """How many bytes they may have together, if that is limited."""
        return None if self.max is None else parse_size(self.max, default_unit="M")

    @property
    def bytes_per_second(self) -> int | None:
        """How many bytes per second fetching may take, if that is limited."""
        return None if self.rate is None else parse_size(self.rate, default_unit="M")


class Cost(Model):
    """What the energy that jobs take stands for. Nothing is assumed: without a figure nothing is told."""

    co2_g_per_kwh: AboveZero | None = option(
        "Grams of CO2 for each kWh that this host takes; the centre, or its supplier of electricity, says how many."
        " It makes `job/co2_g` of `job/energy_kwh`.",
        350,
    )


class Profile(Model):
    """One deployment target."""

    refused: ClassVar[Mapping[str, str]] = {"name": "a profile's name is its file's name"}

    description: Text | None = option("What this profile is for.", "The supercomputer")
    site: Word | None = option("The centre whose shipped facts and limits hold here.", "leonardo")
    host: Host = option("Where commands run.", {"type": "local"}, default=LocalHost())
    scheduler: Literal["process", "slurm"] = option("Who runs the job script.", "slurm", default="process")
    workdir: Word = option(
        "Folder on the host for run directories, environments and the store. On the local host a"
        " relative path starts at the project folder; over ssh it must be absolute, or start with `~/` or with a"
        " variable that is set there, such as `$SCRATCH`.",
        "/scratch/project/dagster",
        default=".dagster-slurm",
    )
    pull_to: Word = option(
        "Folder on Dagster's machine for outputs with `pull`; a relative path starts at the project folder.",
        "~/results",
        default=".dagster-slurm/outputs",
    )
    resources: Resources = option(
        "Default resources.", {"partition": "gpu", "account": "proj1"}, default=Resources()
    )
    launcher: Launcher | None = option("Default launcher.", {"type": "srun"})
    environment: ProfileEnvironment = option(
        "Who makes environments, and the default environment.",
        {"build": "deployed"},
        default=ProfileEnvironment(),
    )
    input_cache: InputCache = option(
        "What is kept on the host of the inputs of scripts.", {"max": "500G"}, default=InputCache()
    )
    env: Env = option("Default environment variables.", {"DATA_DIR": "/scratch/project/data"}, default={})
    export: list[Variable] = option(
        "Variables of the host's login that payloads inherit, where a script doesn't say so itself.",
        ["SCRATCH", "PROJECT"],
        default=[],
    )
    umask: Umask | None = option("The payloads' umask, in quotes; by default the login's.", "0027")
    leave: Flag | None = option(
        "Whether scripts leave their jobs to the sensor, where they don't say so themselves.", True
    )
    limits: Limits = option(
        "What may be asked of the host and its scheduler.", {"max_submit_jobs": 100}, default=Limits()
    )
    retention: Retention = option("How long things are kept.", {"failure": "14d"}, default=Retention())
    cost: Cost = option("What the energy that jobs take stands for.", {"co2_g_per_kwh": 350}, default=Cost())
    on_shutdown: Literal["detach", "cancel"] = option(
        "What happens to jobs when Dagster is stopped: they live on, or they are cancelled.",
        "detach",
        default="detach",
    )
    park_timeout: Duration = option(
        "How long a step waits for a lost host, an expired login, or a Slurm that can't tell whether it has the job; "
        "after it the step fails.",
        "7d",
        default="7d",
    )
    sampler: Flag = option(
        "Whether a small program beside the payload writes down what the job uses: CPU, memory, GPUs, bytes.",
        False,
        default=True,
    )
    pool: Pool | None = option("Default Dagster concurrency pool of the scripts.", "slurm")

    @model_validator(mode="after")
    def _workdir_of_another_machine(self) -> Self:
        # A relative path would start wherever sshd puts us, which sites change.
        complete = self.workdir.startswith(("/", "~", "$")) or is_template(self.workdir)
        if not complete and not isinstance(self.host, LocalHost):
            message = "over ssh `workdir` must be absolute, or start with `~/` or `$NAME`; it is "
            message += repr(self.workdir)
            error = details(mistake(message), ("workdir",), self.workdir)
            raise ValidationError.from_exception_data("Profile", [error])
        return self
