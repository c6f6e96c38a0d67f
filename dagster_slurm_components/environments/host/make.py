"""Makes an environment in a folder aside: artifacts and archives in, commands run, itself compared with the lock."""

import glob
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from typing import Any, Optional

from dagster_slurm_components.environments.host.commands import (
    Env,
    activated,
    execute,
    plain_environment,
    run,
    tail,
)
from dagster_slurm_components.environments.host.files import Json, Problem, hash_of, size_of, write
from dagster_slurm_components.environments.host.store import admit
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
        if order["check"]:
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
        asked = order["check"]
        installed = check(asked, aside, order["manifest"], published=False) if asked else None
        squash(os.path.join(aside, "prefix"), image, env)
    finally:
        remove_tree(aside)
    return {"installed": installed, "image": hash_of(image)}


def squash(prefix: str, image: str, env: Env) -> None:
    """Write the image of a prefix, by ``mksquashfs`` as it is found under these variables."""
    path = env.get("PATH", os.defpath)
    program = shutil.which("mksquashfs", path=path + ":/usr/sbin:/sbin")
    if program is None:
        raise Problem(
            "no_squashfs", "`form: squashfs` needs the program mksquashfs, which is not on PATH (%s)" % path
        )
    # zstd at level 3 takes a seventh of gzip's time and unpacks faster; old squashfs-tools are built without it.
    usage = run([program, "-help"], env)
    packed = ["gzip"]
    if b"zstd" in usage.stdout + usage.stderr:
        packed = ["zstd", "-Xcompression-level", "3"]
    options = ["-noappend", "-quiet", "-no-progress", "-no-xattrs", "-comp"]
    execute([program, prefix, image, *options, *packed], env)


def install(order: Json, folder: str, cache: str) -> Env:
    """Make the prefix of an environment in a folder, beside its ``content``; return the variables it was made under."""
    places = {name: os.path.join(folder, name) for name in ("prefix", "content")}
    places["cache"] = cache
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
        source = admit(order["workdir"], artifact)
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
            outside = os.path.isabs(member.name) or os.path.normpath(member.name).startswith("..")
            if outside or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
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
        done = run(argv, plain_environment())
    if done.returncode == 0:
        return None if published else json.loads(done.stdout.decode("utf-8"))
    if done.returncode == 3:
        raise Problem("differs", "the environment is not what the lock says", tail(done.stderr).splitlines())
    raise Problem("build_failed", "its Python can't check it: " + tail(done.stderr))
