"""Outputs that the step brings to Dagster's machine: going on where an earlier try stopped, and whole or not at all."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.download import download, link, plan, read_outputs
from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.into import ready_command
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outputs import Made, named
from dagster_slurm_components.pipes.outputs import OUTPUT, PULLED
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.units import format_size

_TELL_EVERY = 10.0
"""Seconds between two lines of progress: each is an event in Dagster's storage."""


def place_here(profile: LoadedProfile, workdir: str, handle: JobHandle) -> Path:
    """Return the folder on Dagster's machine for what comes of a job, called as its run directory."""
    relative = handle.run_dir.removeprefix(f"{workdir}/runs/").strip("/")
    return profile.folder / Path(profile.profile.pull_to).expanduser() / relative


@dataclass(frozen=True)
class Puller:
    """Brings outputs of a profile's jobs below its ``pull_to``, in folders called as their run directories.

    Attributes:
        tell: Receives lines of progress.
        check: Is called while bytes come; what it raises ends that, and what has come stays.
    """

    satellite: Satellite
    profile: LoadedProfile
    workdir: str
    tell: Callable[[str], None]
    check: Callable[[], None]

    def pull(self, made: Sequence[Made], handle: JobHandle) -> dict[str, Figure]:
        """Bring those outputs that say so; return where each is now, as a path, or a sentence why it is not here.

        Raises:
            HostError: The host refuses, or was waited for too long.
            DagsterSlurmError: An output has changed since, or there is no room for it here.
        """
        if not any(each.pull and each.count for each in made):
            return {}
        if any(each.count > len(each.files) for each in made):
            made = read_outputs(self.satellite, handle.run_dir)
        top = place_here(self.profile, self.workdir, handle)
        figures: dict[str, Figure] = {}
        for each in (each for each in made if each.pull and each.count):
            figures[f"{OUTPUT}{each.name}{PULLED}"] = self._too_large(each, handle) or self.bring(each, top)
        return figures

    def _too_large(self, made: Made, handle: JobHandle) -> str:
        if made.most is None or made.bytes <= made.most:
            return ""
        get = ready_command("get", named(handle), self.profile.name, made.name)
        sizes = f"{format_size(made.bytes)}, and `pull` has `max` {format_size(made.most)}"
        text = f"not pulled, as it has {sizes}: `{get}` brings it"
        self.tell(f"Output `{made.name}` is {text}.")
        return text

    def bring(self, made: Made, top: Path) -> str:
        """Bring one output into a folder of its name below ``top``, and return where it is."""
        final = top / made.name
        folder = (
            final if final.exists() else top / f".{made.name}.part"
        )  # there is one of an earlier try's end
        told, here, size = time.monotonic(), 0, format_size(made.bytes)

        def got(size_of_it: int) -> None:
            nonlocal told, here
            self.check()
            here += size_of_it
            if size_of_it and time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                self.tell(f"Output `{made.name}`: {format_size(here)} of {size} are here.")

        try:
            top.mkdir(parents=True, exist_ok=True)
            missing, _ = plan(made, folder, force=True)
            if isinstance(self.profile.profile.host, LocalHost):
                missing = link(missing)
            download(self.satellite, missing, folder, got=got)
            if folder != final:
                os.rename(folder, final)
        except OSError as error:
            text = f"output `{made.name}` can't be brought to {final}: {error.strerror}"
            hint = "`pull_to` of the profile says where; run the step again: it takes up the same job."
            raise DagsterSlurmError(text, where=self.profile.name, hint=hint) from error
        self.tell(f"Output `{made.name}`, {size}, is here: {final}")
        return str(final / made.files[0].name if made.single else final)


def not_pulled(made: Sequence[Made], handle: JobHandle, profile: str) -> dict[str, Figure]:
    """Return what is told where nobody brings outputs that say `pull`, as the sensor, which has to be quick."""
    return {
        f"{OUTPUT}{each.name}{PULLED}": "not pulled, as the step left its job: "
        f"`{ready_command('get', named(handle), profile, each.name)}` brings it"
        for each in made
        if each.pull and each.count
    }
