"""Sources of small packages that build themselves, so that no test fetches a build backend; repositories of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
# A build backend in a few lines. The version is its own: 2.5.
CODE = """
import pathlib, sys, zipfile
MINOR = "cp%d%d" % sys.version_info[:2]
TAG = "py3-none-any"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, info = f"NAME-2.5-{TAG}.whl", "NAME-2.5.dist-info"
    files = sorted(path for path in pathlib.Path("NAME").rglob("*") if path.is_file())
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for path in files:
            wheel.write(path)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 2.5\\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {TAG}\\n")
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\\n" for path in files))
    return name
build_editable = build_wheel
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "NAME-2.5.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: NAME\\nVersion: 2.5\\n")
    return info.name
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
"""
VERSION = 'version = "2.5"'


def make_package(
    folder: Path, name: str, *, version: str = 'dynamic = ["version"]', more: str = "", tag: str = ""
) -> Path:
    """Write a package; ``tag`` is Python code for that of its wheel, which fits everything otherwise."""
    (folder / name).mkdir(parents=True)
    head = f'[project]\nname = "{name}"\n{version}\nrequires-python = ">=3.10"\n'
    (folder / "pyproject.toml").write_text(head + more + BACKEND)
    code = CODE.replace("NAME", name)
    (folder / "backend.py").write_text(code.replace('TAG = "py3-none-any"', f"TAG = {tag}") if tag else code)
    (folder / name / "__init__.py").write_text("VALUE = 1\n")
    return folder


def git(folder: Path, *argv: str) -> str:
    """Run git in a folder, as somebody, and let it leave nothing running."""
    own = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "protocol.file.allow=always"]
    own += ["-c", "gc.auto=0", "-c", "maintenance.auto=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *own, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path) -> str:
    """Commit all that lies in a folder, a repository from then on, and return the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "config", "gc.auto", "0")
        git(folder, "config", "maintenance.auto", "false")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one")
    return git(folder, "rev-parse", "HEAD")
