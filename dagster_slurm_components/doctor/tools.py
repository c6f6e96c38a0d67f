"""What a host has for environments."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dagster_slurm_components.doctor.findings import Finding, note, ok, warning
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import HostFacts
from dagster_slurm_components.spec.profiles import LoadedProfile

_RUNTIMES = ("apptainer", "singularity", "enroot")
PROGRAMS = ("tar", "gzip", "zstd", "uv", "pixi", "conda", *_RUNTIMES, "mksquashfs", "squashfuse")
_WHICH = "import json, shutil, sys; print(json.dumps([name for name in sys.argv[1:] if shutil.which(name)]))"


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
    if needs_modules and not has_modules:
        yield warning(
            "modules",
            "the profile loads environment modules, but login shells know no `module`",
            "Name the shell file that defines it in `environment.setup`, or correct the profile.",
        )
    elif needs_modules:
        yield ok("modules", "login shells know `module`")
    if kind == "container" and not set(_RUNTIMES) & set(programs):
        yield warning(
            "container",
            "this host has no container runtime",
            "Compute nodes may have one all the same; else load its module by `environment.modules`.",
        )
