"""Outputs of a job that are asked for on Dagster's machine: what is here already is taken, else it is brought now."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import dagster as dg

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.hosts.satellite.locks import acquire
from dagster_slurm_components.jobs.download import read_outputs
from dagster_slurm_components.jobs.outputs import NAME, File, Made, tree_hash
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.pipes.call import Calls
from dagster_slurm_components.pipes.guard import StoppedError
from dagster_slurm_components.pipes.outputs import HASH, OUTPUT, PATH, PULLED
from dagster_slurm_components.pipes.pull import Puller
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profiles import LoadedProfile, load_profile

_CACHE = "cache"
"""The folder below ``pull_to``; runs are called by longer names."""
_FILE, _FOLDER = "file", "folder"
"""Where the cache keeps what is one file, and what is not."""
_MARK = ".dg-slurm-output"
_ASK_EVERY = 0.2
"""Seconds between two looks whether another step has brought the same."""


@dataclass(frozen=True)
class Output:
    """One output, as the metadata of a materialization tell of it; its hash and places where they are known."""

    name: str
    profile: str
    run_dir: str
    path: str | None
    hash: str | None
    pulled: str | None


def outputs_of(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Output]:
    """Return the outputs that a materialization has, by name; none where no job has made it."""
    texts = {key: value.value for key, value in metadata.items() if isinstance(value.value, str)}
    profile, run_dir = texts.get("job/profile"), texts.get("job/run_directory")
    if profile is None or run_dir is None:
        return {}
    names = [key.removeprefix(OUTPUT).removesuffix("/bytes") for key in metadata if key.endswith("/bytes")]
    return {
        name: Output(
            name, profile, run_dir, *(texts.get(f"{OUTPUT}{name}{end}") for end in (PATH, HASH, PULLED))
        )
        for name in names
        if f"{OUTPUT}{name}/bytes" in metadata and NAME.fullmatch(name)
    }


def bring(output: Output, start: Path, tell: Callable[[str], None]) -> Path:
    """Return a file or folder of this machine that is an output, in a step that can be interrupted meanwhile.

    Raises:
        DagsterExecutionInterruptedError: The step was interrupted; what has come stays.
    """

    def work(stop: threading.Event) -> Path:
        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise StoppedError("This step was interrupted.")

        return brought(output, start, tell, pause)

    return Calls().run(work, name=f"bring-{output.name}")


def brought(output: Output, start: Path, tell: Callable[[str], None], pause: Callable[[float], None]) -> Path:
    """Return a file or folder of this machine that is an output: what was pulled or brought before, if it is that yet.

    Else it comes into a cache below the ``pull_to`` of the profile that it was made in; of several steps that ask for
    it at once one brings it. ``start`` is a folder of the project; what ``pause`` raises ends it, and what has come
    stays. On the local host it gets a second name there.

    Raises:
        SpecError: That profile is not known here.
        HostError: Its host can't be reached, or was waited for too long after it was; what has come stays.
        DagsterSlurmError: It was changed or removed meanwhile, or there is no room for it here.
    """
    pulled = Path(output.pulled) if output.pulled and os.path.isabs(output.pulled) else None
    if pulled is not None and pulled.exists() and (output.hash is None or _hash(pulled) == output.hash):
        return pulled
    loaded = load_profile(output.profile, start=start)
    content = output.hash or f"{output.profile}\0{output.run_dir}"
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    top = loaded.folder / Path(loaded.profile.pull_to).expanduser() / _CACHE / key
    try:
        top.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text, hint = f"{top} can't be made: {error.strerror}", "`pull_to` of the profile says where."
        raise DagsterSlurmError(text, where=loaded.name, hint=hint) from error
    while (release := acquire(os.fsencode(top / ".lock"))) is None:
        pause(_ASK_EVERY)
    try:
        return _cached(output, top) or _brought(output, top, loaded, tell, pause)
    finally:
        release()


def _cached(output: Output, top: Path) -> Path | None:
    """Return what an earlier step has brought, where its hash can be told without its host."""
    for found in (*(top / _FILE / output.name).glob("*"), top / _FOLDER / output.name):
        if found.exists() and output.hash is not None and _hash(found) == output.hash:
            return found
    return None


def _brought(
    output: Output,
    top: Path,
    loaded: LoadedProfile,
    tell: Callable[[str], None],
    pause: Callable[[float], None],
) -> Path:
    place = target(loaded)
    made = {each.name: each for each in read_outputs(place.satellite, output.run_dir)}.get(output.name)
    made = made or _published(output, place.satellite)
    parking = Parking(duration_seconds(loaded.profile.park_timeout), tell, pause)
    patient = Satellite(ParkedHost(place.satellite.host, parking))
    puller = Puller(patient, loaded, place.workdir, tell, lambda: pause(0))
    folder = top / (_FILE if made.single else _FOLDER)
    found = Path(puller.bring(made, folder))
    if made.hash is None and output.hash is not None and _hash(found) != output.hash:
        shutil.rmtree(folder / output.name)
        raise _gone(output, loaded.name, f"{made.path} is not what it was when its job ended")
    return found


def _published(output: Output, satellite: Satellite) -> Made:
    """Return what there is of a published output whose run directory, with the list of its files, was removed."""
    path = PurePosixPath(output.path or output.run_dir)
    if path.is_relative_to(output.run_dir) or output.hash is None:
        raise _gone(output, satellite.host.name, f"the run directory {output.run_dir} was removed")
    done = satellite.run(["find", str(path), "-type", "f", "-printf", r"%P\0%s\0"])
    fields = bytes(done.stdout).decode("utf-8", "surrogateescape").split("\0")
    sizes = {name: int(size) for name, size in zip(fields[::2], fields[1::2], strict=False) if name != _MARK}
    if done.returncode or not sizes:
        raise _gone(
            output, satellite.host.name, f"{path} and the run directory {output.run_dir} were removed"
        )
    single = [*sizes] == [""]
    files = tuple(File(name or path.name, size, None) for name, size in sorted(sizes.items()))
    return Made(
        name=output.name,
        pattern=str(path),
        root=str(path.parent if single else path),
        single=single,
        count=len(files),
        bytes=sum(sizes.values()),
        hash=None,
        files=files,
    )


def _hash(path: Path) -> str:
    """Return the hash that a file or folder of this machine has as an output."""
    base, files = (path.parent, [path]) if path.is_file() else (path, [*path.rglob("*")])
    return tree_hash((str(each.relative_to(base)), hash_of(each)) for each in files if each.is_file())


def _gone(output: Output, where: str, why: str) -> DagsterSlurmError:
    text = f"output `{output.name}` can't be brought any more: {why}"
    hint = "Make it again. `to` publishes an output where no cleaning removes it, `pull: true` brings it here at once."
    return DagsterSlurmError(text, where=where, hint=hint)
