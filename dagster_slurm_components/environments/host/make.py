"""Makes an environment in a folder aside: artifacts and archives in, commands run, itself compared with the lock."""

import glob
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from typing import Any, Optional

from dagster_slurm_components.environments.host.commands import (
    Env,
    activated,
    execute,
    plain_environment,
    tail,
)
from dagster_slurm_components.environments.host.files import (
    Json,
    Problem,
    hash_of,
    size_of,
    write,
)
from dagster_slurm_components.environments.host.squash import squash
from dagster_slurm_components.environments.host.store import admit, stored_path
from dagster_slurm_components.hosts.satellite.files import remove_tree


def make(order: Json, folder: str) -> Json:
    """Make an environment in a folder that will be renamed."""
    manifest = dict(order["manifest"], created=time.time(), entry=order["entry"])
    if order["form"] == "squashfs":
        manifest.update(make_image(order, folder))
    else:
        install(order, folder, os.path.join(order["workdir"], "store", "cache"))
        if order["entry"] != "prefix":
            os.rename(os.path.join(folder, "content", order["entry"]), os.path.join(folder, order["entry"]))
        remove_tree(os.path.join(folder, "content"))
        if order.get("check"):
            manifest["installed"] = check(order["check"], folder, manifest, published=False)
    manifest["bytes"], manifest["inodes"] = size_of(folder)
    write(os.path.join(folder, ".used"), "")
    write(os.path.join(folder, ".ready"), json.dumps(manifest, sort_keys=True))
    return manifest


def make_image(order: Json, folder: str) -> Json:
    """Make an environment as one file; return what the manifest says of it.

    All other files, the packer's cache too, lie in this machine's own temporary folder: on the file system of the
    working folder they would count, if only for the time of the build.
    """
    image = os.path.join(folder, order["entry"])
    aside = tempfile.mkdtemp(prefix="dagster-slurm-build-")
    try:
        env = install(order, aside, os.path.join(aside, "cache"))
        installed = (
            check(order["check"], aside, order["manifest"], published=False) if order.get("check") else None
        )
        squash(os.path.join(aside, "prefix"), image, env)
    finally:
        remove_tree(aside)
    return {"installed": installed, "image": hash_of(image)}


def install(order: Json, folder: str, cache: str) -> Env:
    """Make the prefix of an environment in a folder, beside its ``content``; return the variables it was made under."""
    places = {
        "prefix": os.path.join(folder, "prefix"),
        "content": os.path.join(folder, "content"),
        "cache": cache,
    }
    lay_out(order, places)
    for archive in order["unpack"]:
        unpack(os.path.join(places["content"], archive), places["prefix"])
    env = activated(order.get("activation"))
    for command in order["commands"]:
        given = {name: word(value, places) for name, value in command["env"].items()}
        execute([word(part, places) for part in command["argv"]], dict(env, **given), folder)
    name_place(places["prefix"], os.path.join(order["workdir"], "envs", order["key"], "prefix"))
    return env


def lay_out(order: Json, places: Env) -> None:
    """Put the artifacts and the plan's texts into ``content``, by name."""
    os.mkdir(places["content"], 0o700)
    os.makedirs(places["cache"], 0o700, exist_ok=True)
    for artifact in order["artifacts"]:
        admit(order["workdir"], artifact)
        source = stored_path(order["workdir"], artifact["sha256"])
        target = os.path.join(places["content"], artifact["name"])
        if artifact["tool"]:
            shutil.copyfile(source, target)
            os.chmod(target, 0o700)
            continue
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            os.symlink(source, target)
    for name, text in order["files"].items():
        write(os.path.join(places["content"], name), text)


def word(value: Any, places: Env) -> str:
    """Return a word of a command, its place filled in."""
    if isinstance(value, dict):
        return os.path.join(places[value["at"]], value["path"]).rstrip("/")
    return str(value)


def name_place(prefix: str, target: str) -> None:
    """Let scripts that name the place where they were made name the one where they will lie."""
    for script in glob.glob(os.path.join(glob.escape(prefix), "bin", "*")):
        if os.path.islink(script) or not os.path.isfile(script):
            continue
        with open(script, "rb") as file:
            content = file.read() if file.read(2) == b"#!" else b""
        if os.fsencode(prefix) in content:
            mode = os.stat(script).st_mode
            os.unlink(script)  # it may share its content with the packer's cache
            write(script, (b"#!" + content).replace(os.fsencode(prefix), os.fsencode(target)).decode("utf-8"))
            os.chmod(script, stat.S_IMODE(mode))


def unpack(archive: str, prefix: str) -> None:
    """Unpack a tar of a prefix; nothing of it may lie or point outside."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = os.path.normpath(member.name)
            if (
                os.path.isabs(member.name)
                or name.startswith("..")
                or not (member.isreg() or member.isdir() or member.issym() or member.islnk())
            ):
                raise Problem("tampered", "the archive holds %r, which may not be in one" % member.name)
            member.mode = (member.mode or 0o600) & 0o700
            tar.extract(member, prefix, set_attrs=not member.isdir())


def check(order: Json, folder: str, manifest: Json, *, published: bool) -> Optional[Json]:
    """Let the environment's own interpreter compare itself with the manifest; a new one also tells what is there."""
    with tempfile.TemporaryDirectory() as aside:
        program, wanted = os.path.join(aside, "verify.py"), os.path.join(aside, "manifest.json")
        write(program, order["program"])
        write(wanted, json.dumps(manifest))
        python = os.path.join(folder, "prefix", "bin", "python")
        argv = [python, "-I", program, order["mode"], wanted] + ([folder] if published else [])
        done = subprocess.run(
            argv,
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    if done.returncode == 0:
        return None if published else json.loads(done.stdout.decode("utf-8"))
    if done.returncode == 3:
        raise Problem("differs", "the environment is not what the lock says", tail(done.stderr).splitlines())
    raise Problem("build_failed", "its Python can't check it: " + tail(done.stderr))
