"""One deployment target: a host, a scheduler, a working folder, and defaults for all scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails
from typing_extensions import Self

from dagster_slurm_components.spec.assets import Pool
from dagster_slurm_components.spec.base import (
    AboveZero,
    Duration,
    Env,
    Model,
    Positive,
    Text,
    Word,
    mistake,
)
from dagster_slurm_components.spec.environments import ENVIRONMENTS, EnvironmentSpec
from dagster_slurm_components.spec.hosts import Host, LocalHost
from dagster_slurm_components.spec.launchers import Launcher
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.templates import is_template


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
            error = mistake(
                f"unknown key `{unknown[0]}` in an environment without a `type`", hint, "unknown_key"
            )
            details = InitErrorDetails(type=error, loc=(unknown[0], "[key]"), input=rest[unknown[0]])
            raise ValidationError.from_exception_data("environment", [details])
        EnvironmentSpec.model_validate({"type": "any", **rest}, context=info.context)
        return self

    def defaults(self) -> dict[str, Any]:
        """Return the raw default environment."""
        return dict(self.model_extra or {})


class ProfileEnvironment(DefaultEnvironment):
    """Who makes environments in this profile, and the default environment of its scripts."""

    build: Literal["on_demand", "deployed"] = Field(
        default="on_demand",
        description="`on_demand`: a step makes what is missing. `deployed`: it takes only what"
        " `dg-slurm env deploy` put there.",
        examples=["deployed"],
    )


class Limits(Model):
    """What this profile may ask of a host and its scheduler."""

    queries_per_minute: AboveZero = Field(
        default=2,
        description="Queries of queue and accounting per minute, for all jobs together.",
        examples=[2],
    )
    burst: Positive = Field(
        default=10,
        description="Queries that may follow each other at once after a quiet time.",
        examples=[10],
    )
    max_submit_jobs: Positive | None = Field(
        default=None,
        description="Jobs waiting or running at once; further ones wait in Dagster.",
        examples=[100],
    )
    file_operations_per_second: AboveZero = Field(
        default=3000,
        description="File operations per second on the host at most, for all jobs of a process; 100 running jobs"
        " need about 270, 1,000 need 2,700. Below what is needed, output comes later.",
        examples=[500],
    )


class Retention(Model):
    """How long `dg-slurm clean` leaves run directories and `dg-slurm env prune` environments alone."""

    success: Duration = Field(
        default="0d", description="Run directories of successful steps.", examples=["0d"]
    )
    failure: Duration = Field(default="14d", description="Run directories of failed steps.", examples=["14d"])
    environments: Duration = Field(
        default="30d", description="Environments that no step used for so long.", examples=["30d"]
    )


class Profile(Model):
    """One deployment target."""

    refused: ClassVar[Mapping[str, str]] = {
        "name": "a profile's name is its file's name",
    }

    description: Text | None = Field(
        default=None, description="What this profile is for.", examples=["The supercomputer"]
    )
    site: Word | None = Field(
        default=None,
        description="The centre whose shipped facts and limits hold here.",
        examples=["leonardo"],
    )
    host: Host = Field(default=LocalHost(), description="Where commands run.", examples=[{"type": "local"}])
    scheduler: Literal["process", "slurm"] = Field(
        default="process", description="Who runs the job script.", examples=["slurm"]
    )
    workdir: Word = Field(
        default=".dagster-slurm",
        description="Folder on the host for run directories, environments and the store. On the local host a"
        " relative path starts at the project folder; over ssh it must be absolute, or start with `~/` or with a"
        " variable that is set there, such as `$SCRATCH`.",
        examples=["/scratch/project/dagster"],
    )
    resources: Resources = Field(
        default=Resources(),
        description="Default resources.",
        examples=[{"partition": "gpu", "account": "proj1"}],
    )
    launcher: Launcher | None = Field(
        default=None, description="Default launcher.", examples=[{"type": "srun"}]
    )
    environment: ProfileEnvironment = Field(
        default=ProfileEnvironment(),
        description="Who makes environments, and the default environment.",
        examples=[{"build": "deployed"}],
    )
    env: Env = Field(
        default={},
        description="Default environment variables.",
        examples=[{"DATA_DIR": "/scratch/project/data"}],
    )
    limits: Limits = Field(
        default=Limits(),
        description="What may be asked of the host and its scheduler.",
        examples=[{"max_submit_jobs": 100}],
    )
    retention: Retention = Field(
        default=Retention(), description="How long things are kept.", examples=[{"failure": "14d"}]
    )
    on_shutdown: Literal["detach", "cancel"] = Field(
        default="detach",
        description="What happens to jobs when Dagster is stopped: they live on, or they are cancelled.",
        examples=["detach"],
    )
    park_timeout: Duration = Field(
        default="7d",
        description="How long a step waits for a lost host or an expired login; after it the step fails.",
        examples=["7d"],
    )
    pool: Pool | None = Field(
        default=None, description="Default Dagster concurrency pool of the scripts.", examples=["slurm"]
    )

    @model_validator(mode="after")
    def _workdir_of_another_machine(self) -> Self:
        # A relative path would start wherever sshd puts us, which sites change.
        known = self.workdir.startswith(("/", "~", "$")) or is_template(self.workdir)
        if not known and not isinstance(self.host, LocalHost):
            message = (
                f"over ssh `workdir` must be absolute, or start with `~/` or `$NAME`; it is {self.workdir!r}"
            )
            details = InitErrorDetails(type=mistake(message), loc=("workdir",), input=self.workdir)
            raise ValidationError.from_exception_data("Profile", [details])
        return self
