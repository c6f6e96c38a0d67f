"""``dg-slurm schema``: JSON Schemas for editors, commit hooks and CI."""

import sys
from pathlib import Path

import click

from dagster_slurm_components.spec.schemas import schema_files, schemas


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("schemas"),
    show_default=True,
    help="Where the schemas lie.",
)
@click.option(
    "--check", "only_check", is_flag=True, help="Write nothing; exit with 1 if a file would change."
)
@click.option(
    "--print", "name", help="Print one schema in one piece and write nothing: defs, script, profile or site."
)
def schema(folder: Path, only_check: bool, name: str | None) -> None:
    """Write the JSON Schemas of defs.yaml, scripts, profiles and sites.

    They refer to one file of definitions beside them, and know the launchers and environments of all installed
    packages. A YAML file names its schema for editors in its first line:
    `# yaml-language-server: $schema=schemas/script.schema.json`.
    """
    if name is not None:
        whole = {file.removesuffix(".schema.json"): text for file, text in schemas().items()}
        if name not in whole:
            raise click.UsageError(f"There is no schema `{name}`; there are: {', '.join(whole)}.")
        click.echo(whole[name], nl=False)
        return
    texts = {folder / file: text for file, text in schema_files().items()}
    changed = [file for file, text in texts.items() if not file.is_file() or file.read_text("utf-8") != text]
    if only_check:
        for file in changed:
            click.echo(f"{file} is not what `dg-slurm schema` writes.", err=True)
        sys.exit(1 if changed else 0)
    folder.mkdir(parents=True, exist_ok=True)
    for file in changed:
        file.write_text(texts[file], encoding="utf-8")
        click.echo(f"wrote {file}")
