"""Can jobs be prepared in the profile's working folder, and what has the host for environments?"""

import json
import os
import secrets
from collections.abc import Iterator

from dagster_slurm_components.doctor.findings import Finding, failed, note, ok, warning
from dagster_slurm_components.errors import DagsterSlurmError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import Disk, FileRead, HostFacts
from dagster_slurm_components.jobs.target import absolute_workdir
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.units import format_size

WORKDIR = ("workdir", "room", "flock")
"""The checks of the working folder."""
LEAST_BYTES = 2 * 1024**3
LEAST_INODES = 20_000
_NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - folders to warn of, not to use

_ADVICE = {
    "not_permitted": "Choose a folder that you may write to.",
    "read_only": "The file system is read-only on this host; choose another `workdir`.",
    "disk_full": "The disk or your quota is full: `dg-slurm clean`, or choose another file system.",
    "not_found": "Part of the path is not there, or is no folder; correct `workdir`.",
}
_OTHER_ADVICE = "Choose another `workdir`, or make this one usable."

# Two holders of one lock: what Lustre mounted without `flock`, and some NFS servers, allow or refuse altogether.
_LOCK_TWICE = """
import fcntl, os, sys
first = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
second = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(0)
sys.exit("the same lock was given twice")
"""

_RUNTIMES = ("apptainer", "singularity", "ch-run", "enroot")
_PLUGINS = {"pyxis": "--container-image", "edf": "--environment"}
"""By what srun makes containers, the option that tells it."""
PROGRAMS = ("tar", "gzip", "zstd", "uv", "pixi", "conda", *_RUNTIMES, "mksquashfs", "squashfuse")
# What activate.sh looks for on the node.
_LACKING = """
unshare --user true 2>/dev/null || echo "user namespaces are switched off"
[ -w /dev/fuse ] || echo "there is no FUSE (/dev/fuse)"
"""
_WHICH = "import json, shutil, sys; print(json.dumps([name for name in sys.argv[1:] if shutil.which(name)]))"


def check_workdir(satellite: Satellite, profile: Profile, facts: HostFacts) -> Iterator[Finding]:
    """Write, read, lock and remove a file there, and look at the room that is left."""
    try:
        workdir = absolute_workdir(profile.workdir, satellite)
        disk = _try_out(satellite, workdir)
    except SatelliteError as error:
        advice = _ADVICE.get(error.code, _OTHER_ADVICE)
        yield failed("workdir", f"{profile.workdir} can't be written to: {error.message}", advice)
    except DagsterSlurmError as error:
        yield failed("workdir", error.message, error.hint or _OTHER_ADVICE)
    else:
        yield _place(workdir, profile)
        yield _room(disk)
        yield _flock(satellite, workdir, facts)


def _try_out(satellite: Satellite, workdir: str) -> Disk:
    """Write and read a file, and remove it again; return the room there is."""
    folder = f"{workdir}/.doctor-{secrets.token_hex(8)}"
    content = os.urandom(65_536)
    satellite.mkdir(folder, workdir)
    try:
        satellite.put(f"{folder}/file", content)
        (file,) = satellite.read([FileRead(f"{folder}/file")])
        if file.data != content:
            raise SatelliteError("a file that was written there reads otherwise", where=satellite.host.name)
        return satellite.disk(workdir)
    finally:
        satellite.remove(workdir, [folder])


def _place(workdir: str, profile: Profile) -> Finding:
    if profile.scheduler == "slurm" and f"{workdir}/".startswith(tuple(f"{each}/" for each in _NODE_LOCAL)):
        detail = f"{workdir} can be written to, but such folders are usually each node's own"
        advice = "Compute nodes must see the same files: choose a folder on a shared file system."
        return warning("workdir", detail, advice)
    return ok("workdir", f"{workdir} can be written to")


def _room(disk: Disk) -> Finding:
    detail = f"{format_size(disk.available)} of {format_size(disk.total)} are free"
    # Some file systems (Btrfs, some network ones) count no inodes.
    if disk.inodes:
        detail += f", and {disk.inodes_available:,} inodes"
    if disk.available < LEAST_BYTES or (disk.inodes and disk.inodes_available < LEAST_INODES):
        advice = "Environments take gigabytes and ten thousands of files: `dg-slurm clean`, or more quota."
        return warning("room", detail, advice)
    return ok("room", detail)


def _flock(satellite: Satellite, workdir: str, facts: HostFacts) -> Finding:
    path = f"{workdir}/.doctor-{secrets.token_hex(8)}.lock"
    try:
        done = satellite.run([facts.executable, "-I", "-S", "-c", _LOCK_TWICE, path], timeout=30)
    finally:
        satellite.remove(workdir, [path])
    if done.returncode == 0:
        return ok("flock", "locks hold")
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    detail = f"file locks don't work there: {lines[-1] if lines else 'no answer in time'}"
    advice = "Slower locks by folders are used instead. Lustre needs the mount option `flock`; ask the site."
    return warning("flock", detail, advice)


def check_tools(satellite: Satellite, loaded: LoadedProfile, facts: HostFacts) -> Iterator[Finding]:
    """Tell what there is, and what the profile's own environment misses."""
    done = satellite.run([facts.executable, "-I", "-S", "-c", _WHICH, *PROGRAMS], timeout=30)
    programs = json.loads(done.stdout or "[]")
    # Modules are a shell function that only login shells know.
    has_modules = satellite.run(["bash", "-lc", "type module"], timeout=30).returncode == 0
    yield note("tools", "found " + (", ".join([*programs, *(["module"] if has_modules else [])]) or "none"))
    environments = [owner.environment.defaults() for owner in (loaded.site, loaded.profile) if owner]
    kind = next((layer["type"] for layer in reversed(environments) if layer.get("type")), None)
    needs_modules = kind == "modules" or any(layer.get("modules") for layer in environments)
    if needs_modules and has_modules:
        yield ok("modules", "login shells know `module`")
    elif needs_modules:
        detail = "the profile loads environment modules, but login shells know no `module`"
        advice = "Write `. FILE` of the file that defines it in `environment.before_modules`, or correct the profile."
        yield warning("modules", detail, advice)
    if kind == "container":
        fields = {name: value for layer in environments for name, value in layer.items()}
        plugin = "edf" if fields.get("edf") else str(fields.get("runtime"))
        if plugin in _PLUGINS:
            yield _of_srun(satellite, _PLUGINS[plugin])
        else:
            yield _container(satellite, set(_RUNTIMES) & set(programs))


def _of_srun(satellite: Satellite, option: str) -> Finding:
    """Tell whether srun has the plugin that makes containers."""
    done = satellite.run(["srun", "--help"], timeout=30)
    if option.encode() in done.stdout + done.stderr:
        return ok("container", f"srun has {option}")
    advice = (
        "The site's plugin for such containers is missing, or this is another cluster: set another `runtime`."
    )
    return warning("container", f"srun has no {option} here", advice)


def _container(satellite: Satellite, runtimes: set[str]) -> Finding:
    """Tell whether containers can run here, as far as the login node speaks for the others."""
    if not runtimes:
        advice = "Compute nodes may have one all the same; else load its module by `environment.modules`."
        return warning("container", "this host has no container runtime", advice)
    lacking = satellite.run(["sh", "-c", _LACKING], timeout=30).stdout.decode("utf-8", "replace").splitlines()
    if lacking:
        advice = "Only a runtime with a setuid part can do without; ask the site about compute nodes."
        return warning("container", f"this host has a runtime, but {' and '.join(lacking)}", advice)
    return ok("container", f"{', '.join(sorted(runtimes))}, with user namespaces and FUSE")
