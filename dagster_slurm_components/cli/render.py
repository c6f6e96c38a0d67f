"""``dg-slurm render``: exactly what would be submitted."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_slurm_components.cli.preview import job_script, preview
from dagster_slurm_components.cli.terminal import json_option, print_json, profile_option, table
from dagster_slurm_components.component.project import chosen, project_scripts
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.run_override import TAGS, RunOverride, run_override
from dagster_slurm_components.spec.source import load_documents, parse_documents

if TYPE_CHECKING:
    from dagster_slurm_components.component.specs import SlurmScript

_TEST_TIMEOUT = 120.0


@click.command()
@click.argument("asset")
@profile_option
@click.option(
    "--config", metavar="FILE|JSON", help="What the run's config asks for, as `dg launch` takes it."
)
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help=f"A tag of the run, `{TAGS}...`.")
@click.option("--script", "whole", is_flag=True, help="Print the whole job script and nothing else.")
@click.option("--test-only", is_flag=True, help="Ask the cluster's `sbatch --test-only` too.")
@json_option
def render(
    asset: str, profile_name: str | None, whole: bool, test_only: bool, as_json: bool, **asked: Any
) -> None:
    """Show exactly what would be submitted for ASSET, and which line of which file says so.

    ASSET is an asset's key, or the name of a script's op. The definitions are loaded as Dagster loads them; nothing is
    submitted. Values of variables that sound like secrets are masked. What a run asks for by config and tags is refused
    as its step would refuse it.
    """
    script = _find_script(asset, project_scripts(Path.cwd(), profile_name))
    with chosen(profile_name):
        run = _asked(script.name, **asked)
        resolved = script.entry.resolve(load_profile(start=script.folder, run=run))
    seen = preview(resolved, script.name)
    verdict = _ask_sbatch(resolved, script.name) if test_only else None
    poor = _look_at_budgets(resolved) if test_only else None
    if as_json:
        answer = {} if verdict is None else {"test_only": {"accepted": verdict[0], "message": verdict[1]}}
        print_json({**seen, **answer, **({"budget": poor} if poor else {})})
    elif whole:
        click.echo(seen["job_script"], nl=False)
    else:
        _show(seen)
        if verdict is not None:
            click.echo(f"\nsbatch --test-only: {'accepted' if verdict[0] else 'refused'}\n{verdict[1]}")
        if poor:
            click.echo(poor)
    sys.exit(0 if verdict is None or verdict[0] else 1)


def _find_script(asset: str, scripts: list[SlurmScript]) -> SlurmScript:
    """Return the script that makes an asset, or whose op has this name."""
    by_key = {spec.key.to_user_string(): script for script in scripts for spec in script.assets}
    found = {script.name: script for script in scripts} | by_key
    if asset not in found:
        message = f"no script in YAML makes `{asset}` (`dg-slurm jobs show` shows jobs of assets in Python)"
        raise DagsterSlurmError(message, hint=did_you_mean(asset, list(by_key)))
    return found[asset]


def _asked(op: str, config: str | None, tags: Sequence[str]) -> RunOverride:
    """Return what a run with this config and these tags would ask for of an op."""
    if wrong := next((tag for tag in tags if not tag.startswith(TAGS) or "=" not in tag), None):
        raise click.UsageError(f"--tag {wrong}: a tag that asks for something is {TAGS}KEY=VALUE.")
    found: Any = {}
    if config is not None:
        is_text = config.lstrip().startswith("{")
        found = (parse_documents(config, "--config") if is_text else load_documents(Path(config)))[0].data
    for key in ("ops", op, "config"):
        if not isinstance(found, Mapping):
            raise click.UsageError(f"--config: expected a mapping in which `{key}` is a key.")
        found = found.get(key) or {}
    return run_override(found, {key: value for key, _, value in (tag.partition("=") for tag in tags)})


def _ask_sbatch(resolved: ResolvedScript, op: str) -> tuple[bool, str]:
    """Ask the cluster whether it would take the job; return whether, and what it said."""
    from dagster_slurm_components.jobs.target import target  # noqa: PLC0415 -- needs the connection's libraries
    from dagster_slurm_components.slurm.rejections import classify_rejection  # noqa: PLC0415

    if resolved.profile.profile.scheduler != "slurm":
        raise DagsterSlurmError(
            f"the profile {resolved.profile.name} has no Slurm to ask", hint="Name another by --profile."
        )
    satellite = target(resolved.profile).satellite
    script = job_script(resolved, op).encode()
    done = satellite.run(["sbatch", "--test-only"], input=script, timeout=_TEST_TIMEOUT)
    said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return True, said
    rejection = classify_rejection(said)
    lines = [rejection.message, rejection.hint]
    if rejection.option is not None and (where := resolved.position("resources", rejection.option)):
        lines.append(f"`{rejection.option}` is written at {where}.")
    return False, "\n".join(line for line in lines if line)


def _look_at_budgets(resolved: ResolvedScript) -> str | None:
    """Return the warning that the step would give of its account's budget."""
    from dagster_slurm_components.jobs.budgets import budget_warning, budgets_of  # noqa: PLC0415 -- as above
    from dagster_slurm_components.jobs.target import target  # noqa: PLC0415

    account = resolved.script.resources.account
    return budget_warning(budgets_of(target(resolved.profile), account), resolved) if account else None


def _show(seen: dict[str, Any]) -> None:
    rows = [
        ("assets", ", ".join(seen["assets"])),
        *((name, seen[name]) for name in ("op", "profile", "host", "scheduler")),
        ("run directory", seen["run_directory"]),
        ("launcher", shlex.join([seen["launcher"], *seen["launch"]])),
        ("payload", shlex.join(seen["payload"])),
        ("environment", seen["environment"]),
        *(("", shlex.join(step)) for step in seen["activation"]),
    ]
    for name, value in rows:
        click.echo(f"{click.style(f'{name:14}', bold=True)} {value}".rstrip())
    _heading("Header of the job script")
    click.echo(seen["header"], nl=False)
    _heading("Variables")
    for name, value in seen["env"].items():
        click.echo(f"{name}={shlex.quote(value)}")
    _heading("Files")
    table(["in the run directory", "from", "bytes"], [[*file.values()] for file in seen["files"]])
    _heading("Values, and where they were written")
    values = [[row["path"], _yaml(row["value"]), row["layer"], row["position"]] for row in seen["values"]]
    table(["value", "", "by", "at"], values)


def _heading(text: str) -> None:
    click.echo("\n" + click.style(text, bold=True, underline=sys.stdout.isatty()))


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
