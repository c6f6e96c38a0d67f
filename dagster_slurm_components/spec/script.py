"""One script: payload, launcher, resources, environment and assets; one Dagster op and one Slurm job."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails
from typing_extensions import Self

from dagster_slurm_components.spec.assets import AssetDeclaration, CheckDeclaration, OpSettings
from dagster_slurm_components.spec.base import Count, Env, Flag, Positive, Text, Umask, Variable, Word
from dagster_slurm_components.spec.environments import CurrentEnvironment, Environment
from dagster_slurm_components.spec.inputs import Inputs, assets_of
from dagster_slurm_components.spec.launchers import BashLauncher, Launcher
from dagster_slurm_components.spec.model import UNTYPED, Model, details, kept, mistake, option, unknown_key
from dagster_slurm_components.spec.outputs import Outputs, Target
from dagster_slurm_components.spec.partition_mappings import AssetDep
from dagster_slurm_components.spec.place import KEY
from dagster_slurm_components.spec.relay import Relay
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.retry import Idle, Retry, Stuck
from dagster_slurm_components.spec.templates import is_template

OVERRIDABLE = (
    "payload",
    "command",
    "args",
    "env",
    "export",
    "umask",
    "files",
    "exclude",
    "inputs",
    "outputs",
    "stage",
    "relay",
    "launcher",
    "resources",
    "environment",
    "retry",
    "requeue_on_timeout",
    "stuck",
    "idle",
    "leave",
    "array",
)
"""What a profile may change: how a script runs, never what it makes."""

IN_A_RUN = ("args", "env", "resources", "environment", "launcher", "retry", "array")
"""What one run may change, beside its ``profile``."""

DEFAULTABLE = (*OVERRIDABLE, "op", "can_subset")
"""What a component's ``defaults`` may hold."""

_INCOMPLETE = ("missing", "missing_one")


def partial_errors(data: Any, allowed: tuple[str, ...], what: str) -> list[InitErrorDetails]:
    """Return what is wrong with a part of a script, such as a profile's override: ``what`` a user calls it.

    What a part leaves out comes from lower layers, so only what it holds is checked, and whether it is ``allowed``.
    """
    if not isinstance(data, Mapping):
        return [details(mistake("expected a mapping", kind="mapping"), (), data)]
    errors = []
    for key in [key for key in data if key not in allowed]:
        if key in Script.model_fields:
            wrong = mistake(f"`{key}` can't be set in {what}", "write it in the script itself", "refused_key")
            errors.append(details(wrong, (key, KEY), data[key]))
        else:
            errors.append(unknown_key(key, allowed, data[key]))
    own = {key: data[key] for key in data if key in allowed and key in Script.model_fields}
    try:
        Script.model_validate(own, context=UNTYPED)
    except ValidationError as exc:
        reported = exc.errors(include_url=False)
        errors += [kept(error) for error in reported if error["type"] not in _INCOMPLETE]
    return errors


def _override(data: Any) -> Any:
    errors = partial_errors(data, OVERRIDABLE, "a profile's override")
    if errors:
        raise ValidationError.from_exception_data("override", errors)
    return data


Override = Annotated[dict[str, Any], AfterValidator(_override)]


class Array(Model):
    """A job array: each partition of a run over a range is an element, with its own output, metadata and end."""

    max_parallel: Positive | None = option("How many tasks of the array run at a time.", 50)
    keys_per_task: Positive = option(
        "How many partitions each task runs, one after the other; more than one pays off where they take seconds.",
        10,
        default=1,
    )


class Script(Model):
    """One script.

    Relative paths start at the folder of the YAML file that holds the script.
    """

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("payload", "command"),)
    needs_one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("payload", "command"),)

    name: Word | None = option(
        "Name of the script and of its op; else it comes from the first asset's key.", "train"
    )
    description: Text | None = option("What the script does.", "Trains the digits model")
    payload: Word | None = option("File that is shipped to the host and run there.", "train.py")
    command: Annotated[list[Text], Field(min_length=1)] | None = option(
        "Program and arguments to run instead of a payload file; no shell reads them.",
        ["gmx", "mdrun", "-deffnm", "md"],
    )
    args: list[Text] = option("Arguments of the payload.", ["--epochs", "3"], default=[])
    env: Env = option("Environment variables of the payload.", {"BATCH_SIZE": "128"}, default={})
    export: list[Variable] = option(
        "Variables of the host's login that the payload inherits, beside locale, PATH and the like.",
        ["SCRATCH", "PROJECT"],
        default=[],
    )
    umask: Umask | None = option("The payload's umask, in quotes; by default the login's.", "0027")
    files: list[Word] = option(
        "Files shipped beside the payload; glob patterns, `**` for any depth.", ["config/*.yaml"], default=[]
    )
    exclude: list[Word] = option(
        "What `files` leave out: globs of names, or of the ends of paths.", ["*.tmp", "data/raw"], default=[]
    )
    inputs: Inputs = option(
        "What the payload reads: an asset, a file of Dagster's machine, or a URL by each name.",
        {"images": "asset:datasets/images", "table": "file:data/table.csv"},
        default={},
    )
    outputs: Outputs = option(
        "Files and folders that the payload makes: a path or pattern below its working folder by each name.",
        {"model": "out/*.pt", "weights": {"path": "weights", "to": "$DATA/models/digits"}},
        default={},
    )
    stage: Target | None = option(
        "Folder of the node below which the payload works on copies; what it makes there is copied back.",
        "$TMPDIR",
    )
    relay: Relay | None = option(
        "Growing files that come to Dagster's machine while the job runs, and what is run there with them.",
        {"wandb": "wandb/offline-run-*", "every": "1m"},
    )
    launcher: Launcher = option(
        "How the payload starts inside the job.", {"type": "bash"}, default=BashLauncher()
    )
    resources: Resources = option(
        "What Slurm is asked for.",
        {"nodes": 1, "cpus_per_task": 4, "mem": "8G", "time": "00:30:00"},
        default=Resources(),
    )
    environment: Environment = option(
        "The software that the payload runs in.", {"type": "current"}, default=CurrentEnvironment()
    )
    retry: Retry = option(
        "Which ends of a job another attempt answers, within the same step.",
        {"out_of_memory": {"attempts": 2, "mem": "x2", "max_mem": "64G"}},
        default=Retry(),
    )
    requeue_on_timeout: Count = option(
        "How often a job that wrote a checkpoint after `signal` goes back into the queue.", 3, default=0
    )
    stuck: Stuck = option(
        "How long a job waits that waiting alone won't start.",
        {"never": "1m", "held": "12h"},
        default=Stuck(),
    )
    idle: Idle | None = option(
        "When a running payload that is silent and idle is told of, or ended; unset: never.",
        {"warn": "30m", "action": "cancel"},
    )
    leave: Flag = option(
        "The step ends when the job is in the queue; the sensor `slurm_jobs` reports what comes of it.",
        True,
        default=False,
    )
    array: Array | None = option(
        "Run a range of partitions as a job array: one submission, and an element for each partition.",
        {"max_parallel": 50},
    )
    assets: list[AssetDeclaration] = option(
        "The assets that the script makes.",
        [{"key": "models/digits", "deps": ["datasets/digits"]}],
        default=[],
    )
    checks: list[CheckDeclaration] = option(
        "Asset checks whose results the payload reports.",
        [{"name": "accuracy_above_90", "asset": "models/digits"}],
        default=[],
    )
    op: OpSettings = option(
        "What Dagster is told of the op behind the script.", {"pool": "gpu_jobs"}, default=OpSettings()
    )
    can_subset: Flag = option(
        "A run may ask for some of the assets only; the payload then makes just those.", True, default=False
    )
    profiles: dict[str, Override] = option(
        "What is different in a profile, by the profile's name.",
        {"local": {"args": ["--epochs", "1"]}},
        default={},
    )
    matrix: dict[str, list[Any]] = option(
        "Lists of values; the script stands for one script per element of their product, in which"
        " `{{ matrix.NAME }}` is the element's value.",
        {"seed": [1, 2, 3]},
        default={},
    )

    @model_validator(mode="after")
    def _depends_on_inputs(self) -> Self:
        """Let each asset be made from the assets among the inputs, as if they were written in its ``deps``."""
        own = {asset.key for asset in self.assets}
        read = [key for key in assets_of(self.inputs) if key not in own and not is_template(key)]
        for asset in self.assets if read else ():
            known = {dep.asset for dep in asset.deps}
            asset.deps.extend(AssetDep(asset=key) for key in read if key not in known)
        return self
