"""Facts about one HPC centre: partitions, limits, login nodes, defaults."""

from typing import Literal

from dagster_slurm_components.spec.base import Count, Env, Flag, Positive, Text, Word
from dagster_slurm_components.spec.hosts import LoginStep, Port
from dagster_slurm_components.spec.launchers import Launcher
from dagster_slurm_components.spec.model import Model, option, required
from dagster_slurm_components.spec.profile import DefaultEnvironment, Limits
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import Memory, Time


class JobLimits(Model):
    """The most that one job may ask for."""

    max_time: Time | None = option("Longest time limit.", "1-00:00:00")
    min_nodes: Positive | None = option("Fewest nodes.", 1)
    max_nodes: Positive | None = option("Most nodes.", 64)
    max_cpus_per_node: Positive | None = option("CPUs of a node.", 32)
    max_mem_per_node: Memory | None = option("Memory of a node.", "494000M")
    max_gpus_per_node: Count | None = option("GPUs of a node.", 4)
    max_submit_jobs: Positive | None = option("Most jobs of one user, waiting or running.", 100)


MemoryOption = Literal["mem", "mem_per_cpu", "mem_per_gpu", "none"]
GpuOption = Literal["gpus", "gpus_per_node", "gpus_per_task", "gres"]


class Partition(JobLimits):
    """One partition of a site."""

    description: Text | None = option("What it is for.", "GPU nodes")
    nodes: Positive | None = option("Nodes in it.", 3456)
    qos: list[Word] = option(
        "Quality of service levels that work here; none listed: any.", ["normal"], default=[]
    )
    gpu_type: Word | None = option("Type of its GPUs.", "a100")
    memory_option: MemoryOption | None = option(
        "The one option by which jobs ask for memory here; `none`: they must not ask for any.", "none"
    )
    gpu_option: GpuOption | None = option("The option by which jobs ask for GPUs here.", "gpus_per_node")


class LoginWay(Model):
    """One way to log in."""

    hostname: Word | None = option("Host to connect to; left out, any of `login_nodes`.", "login.example.org")
    port: Port = option("Port.", 22, default=22)
    login: list[LoginStep] = option("What the host asks for, in order.", ["key", "otp"], default=["key"])
    jump: list[Word] = option("Hosts to go through, nearest first.", ["bastion.example.org"], default=[])
    notes: list[Text] = option(
        "What a user should know.", ["Only from inside the campus network"], default=[]
    )


class Source(Model):
    """Where facts were read."""

    document: Word = required("The document, or the command whose answer it was.", "User guide, section Jobs")
    url: Word | None = option("Where the document is.", "https://docs.example.org/jobs")
    date: Word = required("When it was read, as YYYY-MM-DD or YYYY-MM.", "2025-01-31", "2025-01")
    verified: Flag = option("Somebody compared the facts with the running system.", True, default=False)


class Site(Model):
    """Facts about one HPC centre, as data. Nothing in it is secret and nothing is a user's."""

    description: Text | None = option("Name of the centre and system.", "Leonardo")
    documentation: Word | None = option(
        "The centre's own documentation, where the facts come from.", "https://docs.example.org"
    )
    verified: Word | None = option("When the facts were last compared with it, as YYYY-MM-DD.", "2025-01-31")
    sources: dict[Word, Source] = option(
        "Where the facts come from, by what they are about: a key of this file, or a path with dots such"
        " as `qos.debug`. The longest path that fits holds; `all` is for everything else.",
        {"all": {"document": "User guide", "date": "2025-01-31"}},
        default={},
    )
    login_nodes: list[Word] = option("Host names to connect to.", ["login.example.org"], default=[])
    logins: list[LoginWay] = option(
        "Ways to log in, the usual one first.", [{"login": ["key", "otp"]}], default=[]
    )
    partitions: dict[Word, Partition] = option(
        "Limits by partition.", {"gpu": {"max_time": "1-00:00:00"}}, default={}
    )
    qos: dict[Word, JobLimits] = option(
        "Limits by quality of service.", {"debug": {"max_time": "00:30:00"}}, default={}
    )
    account_required: Flag = option("Jobs without an account are refused.", True, default=False)
    interactive_login: Flag = option(
        "The login asks for a one-time password or certificate.", True, default=False
    )
    internet_on_compute_nodes: Flag | None = option("Compute nodes reach the internet.", False)
    internet_on_login_nodes: Flag | None = option("Login nodes reach the internet.", True)
    memory_option: MemoryOption | None = option(
        "The one option by which jobs ask for memory; `none`: they must not ask for any.", "mem_per_cpu"
    )
    gpu_option: GpuOption | None = option("The option by which jobs ask for GPUs.", "gpus_per_node")
    paths: dict[Word, Word] = option(
        "Folders by what they are for, as paths or the variables that the site sets.",
        {"scratch": "$SCRATCH"},
        default={},
    )
    notes: list[Text] = option("Quirks that a user should know.", ["No /tmp"], default=[])
    resources: Resources = option("Default resources.", {"partition": "gpu"}, default=Resources())
    launcher: Launcher | None = option("Default launcher.", {"type": "srun"})
    environment: DefaultEnvironment = option(
        "Default environment.", {"modules": ["python"]}, default=DefaultEnvironment()
    )
    env: Env = option("Default environment variables.", {"OMP_PROC_BIND": "true"}, default={})
    limits: Limits = option(
        "What may be asked of the host and its scheduler.", {"queries_per_minute": 1}, default=Limits()
    )
