"""A handmade conda channel, a ``pixi.lock`` of it, and prefixes installed from it by the real rattler."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from pathlib import Path

import yaml

PLACEHOLDER = "/placehold_placehold_placehold_placehold_placehold_placehold_placehold_placehold_placehold"
SUBDIR = f"linux-{ {'x86_64': '64'}.get(platform.machine(), platform.machine()) }"
PYTHON_VERSION = ".".join(str(part) for part in sys.version_info[:3])
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def make_conda(
    channel: Path,
    name: str,
    version: str,
    files: dict[str, bytes],
    *,
    build: str = "h1_0",
    links: dict[str, str] | None = None,
    noarch: bool = False,
    subdir: str = SUBDIR,
) -> Path:
    """Write a package; text files that hold the placeholder are marked so."""
    index = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": [],
        "subdir": subdir,
    }
    if noarch:
        index |= {"noarch": "python", "subdir": "noarch"}
    paths = []
    for path, data in sorted(files.items()):
        entry = {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(data).hexdigest()}
        entry["size_in_bytes"] = len(data)  # type: ignore[assignment]
        if PLACEHOLDER.encode() in data:
            entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
        paths.append(entry)
    paths += [{"_path": path, "path_type": "softlink"} for path in links or {}]
    info = {
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/files": "\n".join([*files, *(links or {})]).encode(),
        "info/link.json": json.dumps({"noarch": {"type": "python"}, "package_metadata_version": 1}).encode(),
    }
    if not noarch:
        del info["info/link.json"]
    folder = channel / str(index["subdir"])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{version}-{build}.tar.bz2"
    with tarfile.open(target, "w:bz2") as archive:
        for path, data in {**info, **files}.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = (
                len(data),
                0o755 if "bin/" in path else 0o644,
                1_600_000_000,
            )
            archive.addfile(member, io.BytesIO(data))
        for path, to in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, to
            archive.addfile(member)
    return target


def dist_info(name: str, version: str) -> dict[str, bytes]:
    """Return the files by which Python knows a package."""
    folder = f"{name}-{version}.dist-info"
    module = f"VERSION = {version!r}\n".encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(module).digest()).rstrip(b"=").decode()
    record = f"{name}/__init__.py,sha256={digest},{len(module)}\n{folder}/METADATA,,\n{folder}/RECORD,,\n"
    return {
        f"{name}/__init__.py": module,
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{folder}/INSTALLER": b"conda\n",
        f"{folder}/RECORD": record.encode(),
    }


def make_channel(channel: Path) -> dict[str, Path]:
    """Write a channel: a Python, a tool that knows its prefix, a library, a compiled and a noarch Python package."""
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    home = f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n".encode()
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    # The interpreter is this machine's own, in a prefix of its own: as a virtual environment has it.
    python = make_conda(
        channel,
        "python",
        PYTHON_VERSION,
        {"pyvenv.cfg": home},
        links={"bin/python": base, "bin/python3": "python", f"bin/{minor}": "python"},
    )
    return {
        "python": python,
        "tool": make_conda(
            channel,
            "tool",
            "1.0",
            {
                "bin/tool": f"#!/bin/sh\necho tool at {PLACEHOLDER}\n".encode(),
                "share/tool/data.txt": b"the same everywhere\n" * 1000,
                "etc/conda/activate.d/tool.sh": b"export TOOL_HOME=$CONDA_PREFIX/share/tool\n",
            },
        ),
        "native": make_conda(
            channel,
            "native",
            "2.0",
            {f"{SITE}/{path}": data for path, data in dist_info("native", "2.0").items()},
        ),
        "pure": make_conda(
            channel,
            "pure",
            "3.0",
            {f"site-packages/{path}": data for path, data in dist_info("pure", "3.0").items()},
            noarch=True,
            build="pyh_0",
        ),
    }


def write_lock(
    folder: Path,
    packages: dict[str, Path],
    *,
    version: int = 6,
    wheels: tuple[Path, ...] = (),
    environment: str = "default",
) -> Path:
    """Write a ``pixi.lock`` in one of the formats that pixi has written over time."""
    folder.mkdir(exist_ok=True)
    entries, used = [], []
    for name, path in packages.items():
        with tarfile.open(path) as archive:
            index = json.load(archive.extractfile("info/index.json"))  # type: ignore[arg-type]
        own = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        own["depends"] = []  # type: ignore[assignment]
        if index.get("noarch"):
            own["noarch"] = index["noarch"]
        used.append({"conda": path.as_uri()})
        if version < 6:
            own |= {"kind": "conda", "name": name, "url": path.as_uri()}
            own |= {key: index[key] for key in ("version", "build", "subdir")}
        else:
            own = {"conda": path.as_uri(), "subdir": index["subdir"], **own}
        entries.append(own)
    for path in wheels:
        name, number = path.name.split("-")[:2]
        own = {"name": name, "version": number, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        used.append({"pypi": path.as_uri()})
        place = {"kind": "pypi", "url": path.as_uri()} if version < 6 else {"pypi": path.as_uri()}
        entries.append({**place, **own})
    lock = {
        "version": version,
        "environments": {
            environment: {
                "channels": [{"url": "https://conda.invalid/forge/"}],
                "indexes": ["https://pypi.invalid/simple"],
                "packages": {SUBDIR: used},
            }
        },
        "packages": entries,
    }
    if version >= 7:
        lock = {"version": version, "platforms": [{"name": SUBDIR}], **lock}
    (folder / "pixi.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    return folder


def install_prefix(packages: dict[str, Path], prefix: Path, cache: Path) -> Path:
    """Install packages into a prefix, by rattler."""
    import rattler  # noqa: PLC0415 - for these tests alone

    async def records() -> list[rattler.RepoDataRecord]:
        found = [await rattler.RepoDataRecord.from_package_archive(path) for path in packages.values()]
        for record, path in zip(found, packages.values(), strict=True):
            record.url = path.as_uri()
        return found

    async def work() -> None:
        await rattler.install(await records(), target_prefix=prefix, cache_dir=cache, show_progress=False)

    asyncio.run(work())
    return prefix
