"""``dg-slurm import``: batch scripts that a user has, as YAML."""

from pathlib import Path

import click

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profiles import project_folder, schema_line
from dagster_slurm_components.spec.sbatch_import import payload_name, yaml_entry, yaml_text


@click.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Write into this folder.  [default: print the YAML]"
)
def import_(files: tuple[Path, ...], to: Path | None) -> None:
    """Turn batch scripts into YAML: FILES as they are given to sbatch.

    Each becomes a script whose payload is a copy of it, unchanged. Its #SBATCH lines become resources, partitions and
    variables; what can't be kept, and what is worth a look, is told with its line.
    """
    folder = to or Path()
    scripts = [yaml_entry(file.read_text("utf-8", "surrogateescape"), str(file)) for file in files]
    text = yaml_text(scripts, schema_line(folder, project_folder(folder)))
    for note in (note for _, notes in scripts for note in notes):
        click.echo(note, err=True)
    if to is None:
        click.echo(text, nl=False)
        return
    written = [
        (to / "defs.yaml", text.encode()),
        *((to / payload_name(str(f)), f.read_bytes()) for f in files),
    ]
    for path, _ in written:
        if path.exists() or [other for other, _ in written].count(path) > 1:
            hint = "Import into another folder, or scripts of one name into one each."
            raise DagsterSlurmError("there is such a file", where=str(path), hint=hint)
    to.mkdir(parents=True, exist_ok=True)
    for path, content in written:
        path.write_bytes(content)
    click.echo(f"wrote {', '.join(str(path) for path, _ in written)}")
