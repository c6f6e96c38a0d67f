"""What a host has for environments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from dagster_slurm_components.doctor.findings import Finding, note, ok, warning
from dagster_slurm_components.hosts.calls import HostFacts
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.spec.profiles import LoadedProfile

PROGRAMS = (
    *("tar", "gzip", "zstd", "uv", "pixi", "conda", "apptainer", "singularity", "enroot"),
    *("mksquashfs", "squashfuse"),
)
_WHICH = "import json, shutil, sys; print(json.dumps([name for name in sys.argv[1:] if shutil.which(name)]))"
# Modules are a shell function that only login shells know.
_MODULE = ("bash", "-lc", "type module")


def check_tools(satellite: Satellite, loaded: LoadedProfile, facts: HostFacts) -> Iterator[Finding]:
    """Tell what there is, and what the profile's own environment misses."""
    done = satellite.run([facts.executable, "-I", "-S", "-c", _WHICH, *PROGRAMS], timeout=30)
    found = json.loads(done.stdout or "[]")
    modules = satellite.run(list(_MODULE), timeout=30).returncode == 0
    there = [*found, *(["module"] if modules else [])]
    yield note("tools", "found " + (", ".join(there) or "none"))
    kind, needs_modules = _environment(loaded)
    if needs_modules and not modules:
        yield warning(
            "modules",
            "the profile loads environment modules, but login shells know no `module`",
            "Name the shell file that defines it in `environment.setup`, or correct the profile.",
        )
    elif needs_modules:
        yield ok("modules", "login shells know `module`")
    runtimes = {"apptainer", "singularity", "enroot"}
    if kind == "container" and not runtimes & set(found):
        yield warning(
            "container",
            "this host has no container runtime",
            "Compute nodes may have one all the same; else load its module by `environment.modules`.",
        )


def _environment(loaded: LoadedProfile) -> tuple[str | None, bool]:
    """Return the type of the profile's environment, and whether it loads modules."""
    layers: list[Mapping[str, object]] = []
    if loaded.site is not None:
        layers.append(loaded.site.environment.defaults())
    layers.append(loaded.profile.environment.defaults())
    kinds = [str(layer["type"]) for layer in layers if layer.get("type")]
    kind = kinds[-1] if kinds else None
    return kind, kind == "modules" or any(layer.get("modules") for layer in layers)
