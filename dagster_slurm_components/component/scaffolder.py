"""``dg scaffold defs``: a commented ``defs.yaml`` and a payload that runs at once."""

import os
import re
import textwrap
from pathlib import Path, PurePosixPath
from typing import Any

import click
import dagster as dg
from pydantic import BaseModel, Field, ValidationError, model_validator
from typing_extensions import Self

from dagster_slurm_components.launchers.base import INTERPRETERS
from dagster_slurm_components.spec.assets import AssetDeclaration
from dagster_slurm_components.spec.component import COMPONENT_TYPE
from dagster_slurm_components.spec.environments import ENVIRONMENTS
from dagster_slurm_components.spec.flow_style import flow_style
from dagster_slurm_components.spec.problems import did_you_mean, problems_of
from dagster_slurm_components.spec.profiles import schema_line
from dagster_slurm_components.spec.sbatch import SUFFIXES

_TEMPLATES = Path(__file__).parent / "scaffold"
_ALIAS = "dagster_slurm_components.component.script_component.SlurmScriptComponent"
_RESOURCES = {
    "bash": '{cpus_per_task: 1, mem: 1G, time: "00:10:00"}',
    "srun": '{nodes: 1, ntasks_per_node: 2, mem: 1G, time: "00:10:00"}',
    "torchrun": '{nodes: 2, cpus_per_task: 2, mem: 2G, time: "00:10:00"}',
    "ray": '{nodes: 2, cpus_per_task: 2, mem: 4G, time: "00:10:00"}',
}
_LAUNCHERS = {
    "bash": "{type: bash}",
    "srun": "{type: srun, local_tasks: 2}",
    "torchrun": "{type: torchrun, nproc_per_node: 2}",
    "ray": "{type: ray}",
}
_OF_PROFILE = (
    "# launcher: {type: srun} # instead of the profile's, or of bash",
    "# environment: {type: uv, project: ../..} # instead of the profile's",
)


class ScaffoldParams(BaseModel):
    """What ``dg scaffold defs`` takes as options.

    Mistakes are click's errors, which ``dg`` prints as they are; of pydantic's it prints the JSON (dagster-dg 1.13).
    """

    payload: str = Field(
        default="main.py", description="Payload file: .py, .sh, .R, .jl or .ipynb; one that exists is kept."
    )
    launcher: str | None = Field(
        default=None,
        description="How it starts: bash, srun, torchrun or ray. By default the profile says it.",
    )
    asset: str | None = Field(default=None, description="Key of its asset; by default the component's name.")
    environment: str | None = Field(
        default=None, description="The software it runs in: uv, path, ... By default the profile says it."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.launcher is not None:
            _check_choice(self.launcher, list(_RESOURCES), "launcher")
        try:
            AssetDeclaration.model_validate({"key": "any" if self.asset is None else self.asset})
        except ValidationError as exc:
            raise click.UsageError("\n".join(map(str, problems_of(exc, lambda path: None)))) from None
        if self.environment is not None:
            _check_choice(self.environment, list(ENVIRONMENTS), "environment")
        suffix = PurePosixPath(self.payload).suffix
        if suffix not in INTERPRETERS:
            raise click.UsageError(f"{self.payload!r}: name a file that ends in {', '.join(INTERPRETERS)}")
        if suffix != ".py" and self.launcher in ("torchrun", "ray"):
            raise click.UsageError(f"the launcher {self.launcher} starts Python programs: name a .py file")
        if suffix == ".ipynb" and self.launcher == "srun":
            raise click.UsageError(
                "a notebook runs once, and the launcher srun starts a payload for each rank"
            )
        return self


def _check_choice(value: str, choices: list[str], what: str) -> None:
    if value not in choices:
        raise click.UsageError(f"unknown {what} {value!r}: {did_you_mean(value, choices)}")


class SlurmScriptScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes a component with one script, and its payload."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        """Return the model of the options."""
        return ScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        """Write ``defs.yaml`` and, unless it exists, the payload; one that lies elsewhere must exist."""
        if request.scaffold_format == "python":
            dg.scaffold_component(request, {})
            return
        folder = request.target_path.parent if request.append else request.target_path
        params = request.params
        text = defs_yaml(params, folder=folder, type_name=request.type_name, project=request.project_root)
        payload = folder / params.payload
        if not payload.exists():
            if not payload.resolve().is_relative_to(folder.resolve()):
                if not any(folder.iterdir()):
                    folder.rmdir()  # `dg` has just made it
                message = f"There is no {payload}; only payloads beside the YAML are written."
                raise click.ClickException(message)
            payload.parent.mkdir(parents=True, exist_ok=True)
            payload.write_text(payload_text(params), encoding="utf-8")
        if request.append:
            with request.target_path.open("a", encoding="utf-8") as stream:
                stream.write(f"---\n{text}")
        else:
            (folder / "defs.yaml").write_text(
                schema_line(folder, request.project_root) + text, encoding="utf-8"
            )


def defs_yaml(params: ScaffoldParams, *, folder: Path, type_name: str, project: Path | None) -> str:
    """Return the text of ``defs.yaml`` for a component's folder; ``type_name`` is its type as Dagster knows it."""
    text = (
        (_TEMPLATES / "defs.yaml.txt")
        .read_text("utf-8")
        .format(
            type=COMPONENT_TYPE if type_name == _ALIAS else type_name,
            payload=flow_style(params.payload),
            launcher=f"launcher: {_LAUNCHERS[params.launcher]}" if params.launcher else _OF_PROFILE[0],
            environment=f"environment: {flow_style(_environment(params.environment, folder, project))}"
            if params.environment
            else _OF_PROFILE[1],
            resources=_RESOURCES[params.launcher or "bash"],
            key=flow_style(params.asset or re.sub(r"[^A-Za-z0-9_.\-]", "_", folder.name)),
            profiles=_profiles(params),
        )
    )
    return text.rstrip() + "\n"


def payload_text(params: ScaffoldParams) -> str:
    """Return the text of a payload that fits the launcher."""
    name = {"srun": "payload_ranks.py", "torchrun": "payload_ranks.py", "ray": "payload_ray.py"}
    suffix = PurePosixPath(params.payload).suffix.lower()
    suffix = ".sh" if suffix in SUFFIXES else suffix
    file = f"payload{suffix}" if suffix != ".py" else name.get(params.launcher or "", "payload.py")
    return (_TEMPLATES / f"{file}.txt").read_text("utf-8").format(payload=PurePosixPath(params.payload).name)


def _environment(name: str, folder: Path, project: Path | None) -> dict[str, Any]:
    """Return an environment with the examples of what it needs."""
    model = ENVIRONMENTS[name]
    needed = [field for field, info in model.model_fields.items() if info.is_required()]
    needed += [group[0] for group in model.needs_one_of]
    tree: dict[str, Any] = {"type": name}
    tree |= {field: (model.model_fields[field].examples or [""])[0] for field in needed}
    if "project" in tree and project is not None:
        tree["project"] = Path(os.path.relpath(project, folder)).as_posix()
    return tree


def _profiles(params: ScaffoldParams) -> str:
    """Return what is different on a laptop, so that the script runs there at once."""
    local: dict[str, Any] = {}
    if params.launcher in ("torchrun", "ray"):
        local["launcher"] = {"type": "bash"}
    if params.environment not in (None, "current"):
        local["environment"] = {"type": "current"}
    lines = [
        "# profiles: # what is different in one profile",
        '#   local: {args: ["--epochs", "1"]}',
    ]
    if local:
        lines = [
            "# Without this, the script needs the same software on this machine too.",
            "profiles:",
            f"  local: {flow_style(local)}",
        ]
    return textwrap.indent("\n".join(lines), " " * 6)
