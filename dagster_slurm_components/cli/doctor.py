"""``dg-slurm doctor``: what is wrong with a profile's host, before a job finds out."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import json_option, profile_option
from dagster_slurm_components.doctor.examine import examine_profile
from dagster_slurm_components.doctor.findings import Finding, Verdict

_LOOKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.NOTE: ("note", "blue"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("FAILED", "red"),
    Verdict.SKIPPED: ("skipped", "bright_black"),
}


@click.command()
@profile_option
@json_option
def doctor(profile_name: str | None, as_json: bool) -> None:
    """Check that jobs of a profile would run: connection, working folder, Slurm, account, partition.

    Submits nothing and leaves nothing behind. Exits with 1 if something would keep jobs from running.
    """
    found: list[Finding] = []
    for finding in examine_profile(profile_name, start=Path.cwd()):
        found.append(finding)
        if not as_json:
            _show(finding)
    wrong = [finding for finding in found if finding.is_failure]
    if as_json:
        listed = [
            {
                "check": finding.check,
                "verdict": finding.verdict.value,
                "detail": finding.detail,
                "advice": finding.advice,
            }
            for finding in found
        ]
        click.echo(json.dumps({"ok": not wrong, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{len(wrong)} failed" if wrong else "jobs can run")
    sys.exit(1 if wrong else 0)


def _show(finding: Finding) -> None:
    word, colour = _LOOKS[finding.verdict]
    click.echo(f"{click.style(f'{word:8}', fg=colour)} {finding.check:14} {_indented(finding.detail)}")
    if finding.advice:
        click.echo(" " * 24 + _indented(finding.advice))


def _indented(text: str) -> str:
    return textwrap.indent(text, " " * 24).lstrip()
