"""Facts about one HPC centre: partitions, limits, login nodes, defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dagster_slurm_components.spec.base import Count, Env, Flag, Model, Positive, Text, Word
from dagster_slurm_components.spec.hosts import LoginStep, Port
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


MemoryOption = Literal["mem", "mem_per_cpu", "mem_per_gpu", "none"]
GpuOption = Literal["gpus", "gpus_per_node", "gpus_per_task", "gres"]


class Partition(JobLimits):
    """One partition of a site."""

    description: Text | None = Field(default=None, description="What it is for.", examples=["GPU nodes"])
    nodes: Positive | None = Field(default=None, description="Nodes in it.", examples=[3456])
    qos: list[Word] = Field(
        default=[],
        description="Quality of service levels that work here; none listed: any.",
        examples=[["normal"]],
    )
    gpu_type: Word | None = Field(default=None, description="Type of its GPUs.", examples=["a100"])
    memory_option: MemoryOption | None = Field(
        default=None,
        description="The one option by which jobs ask for memory here; `none`: they must not ask for any.",
        examples=["none"],
    )
    gpu_option: GpuOption | None = Field(
        default=None, description="The option by which jobs ask for GPUs here.", examples=["gpus_per_node"]
    )


class LoginWay(Model):
    """One way to log in."""

    hostname: Word | None = Field(
        default=None,
        description="Host to connect to; left out, any of `login_nodes`.",
        examples=["login.example.org"],
    )
    port: Port = Field(default=22, description="Port.", examples=[22])
    login: list[LoginStep] = Field(
        default=["key"], description="What the host asks for, in order.", examples=[["key", "otp"]]
    )
    jump: list[Word] = Field(
        default=[], description="Hosts to go through, nearest first.", examples=[["bastion.example.org"]]
    )
    notes: list[Text] = Field(
        default=[], description="What a user should know.", examples=[["Only from inside the campus network"]]
    )


class Source(Model):
    """Where facts were read."""

    document: Word = Field(
        description="The document, or the command whose answer it was.", examples=["User guide, section Jobs"]
    )
    url: Word | None = Field(
        default=None, description="Where the document is.", examples=["https://docs.example.org/jobs"]
    )
    date: Word = Field(
        description="When it was read, as YYYY-MM-DD or YYYY-MM.", examples=["2025-01-31", "2025-01"]
    )
    verified: Flag = Field(
        default=False, description="Somebody compared the facts with the running system.", examples=[True]
    )


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
    sources: dict[Word, Source] = Field(
        default={},
        description="Where the facts come from, by what they are about: a key of this file, or a path with dots such"
        " as `qos.debug`. The longest path that fits holds; `all` is for everything else.",
        examples=[{"all": {"document": "User guide", "date": "2025-01-31"}}],
    )
    login_nodes: list[Word] = Field(
        default=[], description="Host names to connect to.", examples=[["login.example.org"]]
    )
    logins: list[LoginWay] = Field(
        default=[],
        description="Ways to log in, the usual one first.",
        examples=[[{"login": ["key", "otp"]}]],
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
    internet_on_login_nodes: Flag | None = Field(
        default=None, description="Login nodes reach the internet.", examples=[True]
    )
    memory_option: MemoryOption | None = Field(
        default=None,
        description="The one option by which jobs ask for memory; `none`: they must not ask for any.",
        examples=["mem_per_cpu"],
    )
    gpu_option: GpuOption | None = Field(
        default=None, description="The option by which jobs ask for GPUs.", examples=["gpus_per_node"]
    )
    paths: dict[Word, Word] = Field(
        default={},
        description="Folders by what they are for, as paths or the variables that the site sets.",
        examples=[{"scratch": "$SCRATCH"}],
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
