"""Facts about one HPC centre: partitions, limits, login nodes, defaults."""

from __future__ import annotations

from pydantic import Field

from dagster_slurm_components.spec.base import Count, Env, Flag, Model, Positive, Text, Word
from dagster_slurm_components.spec.launchers import Launcher
from dagster_slurm_components.spec.profile import DefaultEnvironment, Limits
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import Memory, Time


class JobLimits(Model):
    """The most that one job may ask for."""

    max_time: Time | None = Field(default=None, description="Longest time limit.", examples=["1-00:00:00"])
    min_nodes: Positive | None = Field(default=None, description="Fewest nodes.", examples=[1])
    max_nodes: Positive | None = Field(default=None, description="Most nodes.", examples=[64])
    max_cpus_per_node: Positive | None = Field(default=None, description="CPUs of a node.", examples=[32])
    max_mem_per_node: Memory | None = Field(
        default=None, description="Memory of a node.", examples=["494000M"]
    )
    max_gpus_per_node: Count | None = Field(default=None, description="GPUs of a node.", examples=[4])
    max_submit_jobs: Positive | None = Field(
        default=None, description="Most jobs of one user, waiting or running.", examples=[100]
    )


class Partition(JobLimits):
    """One partition of a site."""

    description: Text | None = Field(default=None, description="What it is for.", examples=["GPU nodes"])
    qos: list[Word] = Field(
        default=[],
        description="Quality of service levels that work here; none listed: any.",
        examples=[["normal"]],
    )
    gpu_type: Word | None = Field(default=None, description="Type of its GPUs.", examples=["a100"])


class Site(Model):
    """Facts about one HPC centre, as data. Nothing in it is secret and nothing is a user's."""

    description: Text | None = Field(
        default=None, description="Name of the centre and system.", examples=["Leonardo"]
    )
    documentation: Word | None = Field(
        default=None,
        description="The centre's own documentation, where the facts come from.",
        examples=["https://docs.example.org"],
    )
    verified: Word | None = Field(
        default=None,
        description="When the facts were last compared with it, as YYYY-MM-DD.",
        examples=["2025-01-31"],
    )
    login_nodes: list[Word] = Field(
        default=[], description="Host names to connect to.", examples=[["login.example.org"]]
    )
    partitions: dict[Word, Partition] = Field(
        default={}, description="Limits by partition.", examples=[{"gpu": {"max_time": "1-00:00:00"}}]
    )
    qos: dict[Word, JobLimits] = Field(
        default={},
        description="Limits by quality of service.",
        examples=[{"debug": {"max_time": "00:30:00"}}],
    )
    account_required: Flag = Field(
        default=False, description="Jobs without an account are refused.", examples=[True]
    )
    interactive_login: Flag = Field(
        default=False, description="The login asks for a one-time password or certificate.", examples=[True]
    )
    internet_on_compute_nodes: Flag | None = Field(
        default=None, description="Compute nodes reach the internet.", examples=[False]
    )
    notes: list[Text] = Field(
        default=[], description="Quirks that a user should know.", examples=[["No /tmp"]]
    )
    resources: Resources = Field(
        default=Resources(), description="Default resources.", examples=[{"partition": "gpu"}]
    )
    launcher: Launcher | None = Field(
        default=None, description="Default launcher.", examples=[{"type": "srun"}]
    )
    environment: DefaultEnvironment = Field(
        default=DefaultEnvironment(), description="Default environment.", examples=[{"modules": ["python"]}]
    )
    env: Env = Field(
        default={}, description="Default environment variables.", examples=[{"OMP_PROC_BIND": "true"}]
    )
    limits: Limits = Field(
        default=Limits(),
        description="What may be asked of the host and its scheduler.",
        examples=[{"queries_per_minute": 1}],
    )
