"""The software that the payload runs in."""

import re
from typing import Annotated, ClassVar, Literal

from dagster_slurm_components.spec.base import Flag, Text, Word
from dagster_slurm_components.spec.model import Model, option, required
from dagster_slurm_components.spec.registry import Registry


class EnvironmentSpec(Model):
    """The base of all environments; ``type`` chooses one."""

    made_of: ClassVar[tuple[tuple[str, str], ...]] = ()
    """The fields that name files of the machine that runs Dagster, each with what has to lie there."""

    type: str = required("Which kind of environment.", "current")
    modules: list[Word] = option(
        "Environment modules, loaded in this order by `module load`, by any name that it takes.",
        ["gcc/12.3", "cuda/12.4"],
        default=[],
    )
    before_modules: list[Text] = option(
        "Shell commands run in this order before the modules are loaded; one that fails ends the job.",
        ["module use /shared/modulefiles"],
        default=[],
    )
    setup: list[Text] = option(
        "Shell commands run in this order after the modules, before the environment; one that fails"
        " ends the job.",
        ["ulimit -n 65536"],
        default=[],
    )


class CurrentEnvironment(EnvironmentSpec):
    """What the job finds: on the local host the Python that Dagster runs in, elsewhere the host's own."""

    type: Literal["current"] = option("Which kind of environment.", "current", default="current")


class PathEnvironment(EnvironmentSpec):
    """An environment that someone else made on the host: its ``bin`` comes first in ``PATH``."""

    type: Literal["path"] = option("Which kind of environment.", "path", default="path")
    path: Word = required("Folder on the host that holds `bin/`.", "/shared/envs/pytorch-2.5")


class ModulesEnvironment(EnvironmentSpec):
    """Environment modules of the host."""

    type: Literal["modules"] = option("Which kind of environment.", "modules", default="modules")
    load: list[Word] = required(
        "Modules to load, in this order, after those of `modules`.", ["python/3.11", "openmpi/4.1"]
    )


class PackedEnvironment(EnvironmentSpec):
    """The base of environments that are made from locked packages, and put on the host once for each content."""

    verify: Literal["names", "full", "off"] = option(
        "What is compared with the lock before the payload boots. `names`: the installed packages, in"
        " milliseconds; `full`: every file's content too; `off`: nothing.",
        "full",
        default="names",
    )
    build_on: Literal["orchestrator", "host"] = option(
        "Who fetches the packages. `orchestrator`: the machine that runs Dagster, so the host needs no"
        " internet. `host`: the host itself; what it can't fetch is sent.",
        "host",
        default="orchestrator",
    )


class UvEnvironment(PackedEnvironment):
    """A Python environment from a project's `uv.lock`, or from a requirements file with hashes."""

    needs_one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("project", "requirements"),)
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("project", "requirements"),)
    made_of: ClassVar[tuple[tuple[str, str], ...]] = (("project", "uv.lock"), ("requirements", ""))

    type: Literal["uv"] = option("Which kind of environment.", "uv", default="uv")
    project: Word | None = option(
        "Folder with `pyproject.toml` and `uv.lock`, relative to the file that names it.", "../.."
    )
    requirements: Word | None = option(
        "Requirements file with every package pinned and hashed (`uv pip compile --generate-hashes`),"
        " instead of a project.",
        "requirements.txt",
    )
    python: Word | None = option(
        "The host's Python: a version, a program on its PATH, or an absolute path. By default the first"
        " on PATH that the project's `.python-version` and `requires-python` allow.",
        "3.12",
        "/opt/python/3.12/bin/python3",
    )
    groups: list[Word] = option("Dependency groups to include.", ["training"], default=[])
    extras: list[Word] = option("Extras of the project to include.", ["gpu"], default=[])
    default_groups: Flag = option(
        "Whether uv's default groups, such as `dev`, are included.", True, default=False
    )
    install_project: Flag = option(
        "Whether the project itself is installed too, if it is a package; without it a change of the"
        " project's own code changes no environment.",
        False,
        default=True,
    )
    form: Literal["folder", "squashfs"] = option(
        "`squashfs`: one file instead of thousands, for file systems on which files are counted. The host"
        " needs mksquashfs, each node squashfuse.",
        "squashfs",
        default="folder",
    )


class PixiEnvironment(PackedEnvironment):
    """One environment of a project's `pixi.lock`: conda packages and PyPI packages."""

    made_of: ClassVar[tuple[tuple[str, str], ...]] = (("project", "pixi.lock"),)
    type: Literal["pixi"] = option("Which kind of environment.", "pixi", default="pixi")
    project: Word = required("Folder with `pixi.lock`, relative to the file that names it.", "../..")
    environment: Word = option("Name of the environment in the lock.", "gpu", default="default")
    platform: Word | None = option(
        "Name of the platform in the lock, where several are of the host's kind.", "workstation-cuda"
    )


class CondaEnvironment(PackedEnvironment):
    """A conda environment that is on the machine that runs Dagster; packed by conda-pack."""

    type: Literal["conda"] = option("Which kind of environment.", "conda", default="conda")
    prefix: Word = required(
        "Folder of the environment on the machine that runs Dagster, relative to the file that names it."
        " Made for the host's platform.",
        "~/miniforge3/envs/training",
    )


class ContainerEnvironment(PackedEnvironment):
    """A container: of an image that is a file here, a file on the host or a reference to fetch, or of CSCS's engine."""

    needs_one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "edf"),)
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "edf"), ("runtime", "edf"))

    type: Literal["container"] = option("Which kind of environment.", "container", default="container")
    image: Word | None = option(
        "The image. A relative path is a file on the machine that runs Dagster, and is sent; an absolute"
        " path is a file on the host; a reference (`docker://...`, `oci:/path`) is fetched by the host once.",
        "images/training.sif",
        "/shared/images/pytorch.sif",
        "docker://python:3.12-slim",
    )
    edf: Word | None = option(
        "An environment file of CSCS's container engine, instead of an image: its name, or its path on the host.",
        "pytorch",
        "/shared/edf/pytorch.toml",
    )
    runtime: Literal["apptainer", "singularity", "charliecloud", "pyxis"] | None = option(
        "What runs the container: apptainer, if neither this nor `edf` is written. Charliecloud's images are folders"
        " or squashfs files, made by its `ch-convert`.",
        "pyxis",
    )
    bind: list[Word] = option(
        "Folders of the host that are visible inside, as `/path` or `/path:/inside[:ro]`; the working"
        " folder, with the run directory, always is.",
        ["/scratch/project/data:/data:ro"],
        default=[],
    )
    gpu: Literal["nvidia", "amd"] | None = option(
        "Whose GPUs the payload uses; pyxis and CSCS's engine find that out by themselves.", "nvidia"
    )
    options: list[Word] = option("Further options of the runtime.", ["--no-home"], default=[])
    python: Word = option("What runs Python payloads inside.", "/opt/conda/bin/python", default="python3")

    @property
    def engine(self) -> str:
        """What runs the container: the runtime, or ``edf`` for CSCS's engine."""
        return "edf" if self.edf else self.runtime or "apptainer"

    @property
    def is_reference(self) -> bool:
        """Whether the host fetches the image: ``docker://...``, ``oci:/path``, ``oci-archive:/path``."""
        return re.match(r"[a-z][a-z0-9-]*:", self.image or "") is not None

    @property
    def is_made(self) -> bool:
        """Whether the image is sent or fetched; else it is the host's own."""
        return self.image is not None and not self.image.startswith("/")


ENVIRONMENTS: Registry[EnvironmentSpec] = Registry(
    "environment",
    "dagster_slurm_components.environments",
    (
        CurrentEnvironment,
        PathEnvironment,
        ModulesEnvironment,
        UvEnvironment,
        PixiEnvironment,
        CondaEnvironment,
        ContainerEnvironment,
    ),
    default="current",
)
"""Model by environment type."""

Environment = Annotated[EnvironmentSpec, ENVIRONMENTS]
"""A field that holds any environment."""
