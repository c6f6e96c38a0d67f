"""``dg-slurm doctor``: what is wrong with a profile's host, before a job finds out."""

import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import json_option, print_json, profile_argument
from dagster_slurm_components.doctor.examine import examine_profile
from dagster_slurm_components.doctor.findings import Finding, Verdict

_STYLES = {
    Verdict.OK: ("ok", "green"),
    Verdict.NOTE: ("note", "blue"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("FAILED", "red"),
    Verdict.SKIPPED: ("skipped", "bright_black"),
}


@click.command()
@profile_argument
@json_option
def doctor(profile_name: str | None, as_json: bool) -> None:
    """Check that jobs of a profile would run: connection, working folder, Slurm, account, partition.

    Submits nothing and leaves nothing behind. Exits with 1 if something would keep jobs from running.
    """
    findings = []
    for finding in examine_profile(profile_name, start=Path.cwd()):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failures = sum(finding.verdict is Verdict.FAILED for finding in findings)
    if as_json:
        print_json({"ok": not failures, "findings": [asdict(finding) for finding in findings]})
    else:
        click.echo(f"{failures} failed" if failures else "jobs can run")
    sys.exit(1 if failures else 0)


def _show(finding: Finding) -> None:
    word, colour = _STYLES[finding.verdict]
    detail, advice = (textwrap.indent(text or "", " " * 24) for text in (finding.detail, finding.advice))
    click.echo(f"{click.style(f'{word:8}', fg=colour)} {finding.check:14} {detail.lstrip()}")
    if advice:
        click.echo(advice)
