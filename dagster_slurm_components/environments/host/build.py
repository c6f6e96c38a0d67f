"""Builds an environment once, whoever wants it at the same time, in a folder aside, and publishes it by rename."""

import glob
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from typing import Optional

from dagster_slurm_components.environments.host.store import admit
from dagster_slurm_components.environments.host.tools import (
    Env,
    Json,
    Problem,
    activated,
    execute,
    hash_of,
    plain_environment,
    run,
    size_of,
    tail,
    write,
)
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked

_UV = {"UV_NO_CONFIG": "1", "UV_OFFLINE": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
# `install`, for `sync` would remove what conda packages brought; the pins name all that is to be there.
_INSTALL = ["pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-index", "--no-build"]


def ready(folder: str) -> Optional[Json]:
    """Return the manifest of an environment that is there."""
    try:
        with open(os.path.join(folder, ".ready"), encoding="utf-8") as file:
            manifest: Json = json.load(file)
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None


def lock_of(envs: str, key: str) -> bytes:
    """Return the lock under which an environment is made or put away."""
    return os.fsencode(os.path.join(envs, ".lock-" + key))


def build(order: Json) -> Json:
    """Make an environment, unless it is there; of all that want it at once one makes it."""
    envs = os.path.join(order["workdir"], "envs")
    target = os.path.join(envs, order["key"])
    os.makedirs(envs, 0o700, exist_ok=True)
    with locked(lock_of(envs, order["key"]), order["patience"], pause=0.5):
        manifest = ready(target)
        if manifest is not None and not order.get("rebuild"):
            for artifact in order["artifacts"]:  # sent though another machine had sent it just now
                remove_tree(os.path.join(order["workdir"], "store", "incoming", artifact["sha256"]))
            return {"state": "ready", "manifest": manifest}
        for left in glob.glob(glob.escape(os.path.join(envs, ".building-%s-" % order["key"])) + "*"):
            remove_tree(left)
        folder = tempfile.mkdtemp(prefix=".building-%s-" % order["key"], dir=envs)
        try:
            manifest = make(order, folder)
            put_away(target)
            os.rename(folder, target)
        except BaseException:
            remove_tree(folder)
            raise
    for old in glob.glob(os.path.join(glob.escape(envs), ".removing-%s-*" % order["key"])):
        remove_tree(old)
    return {"state": "built", "manifest": manifest}


def put_away(target: str) -> Optional[str]:
    """Move an environment out of sight; what runs in it keeps its open files."""
    folder, key = os.path.split(target)
    aside = os.path.join(folder, ".removing-%s-%s-%d" % (key, os.uname().nodename, os.getpid()))
    try:
        os.rename(target, aside)
    except FileNotFoundError:
        return None
    return aside


def make(order: Json, folder: str) -> Json:
    """Make an environment in a folder that will be renamed."""
    manifest = dict(order["manifest"], created=time.time())
    if manifest["form"] == "squashfs":
        manifest.update(make_image(order, folder))
    else:
        install(order, folder, os.path.join(order["workdir"], "store", "cache"))
        if manifest["entry"] != "prefix":
            image = os.path.join(folder, "content", manifest["entry"])
            os.rename(image, os.path.join(folder, manifest["entry"]))
        remove_tree(os.path.join(folder, "content"))
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
    image = os.path.join(folder, order["manifest"]["entry"])
    aside = tempfile.mkdtemp(prefix="dagster-slurm-build-")
    try:
        env = install(order, aside, os.path.join(aside, "cache"))
        installed = check(order["check"], aside, order["manifest"], published=False)
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
    prefix, content = os.path.join(folder, "prefix"), os.path.join(folder, "content")
    lay_out(order, content)
    for archive in order["unpack"]:
        unpack(os.path.join(content, archive), prefix)
    env = activated(order["activation"])
    uv, own = os.path.join(content, "uv"), dict(env, UV_CACHE_DIR=os.path.join(cache, "uv"), **_UV)
    if order["python"]:  # else the archives brought their own
        options = ["--quiet", "--relocatable", "--no-project", "--python", order["python"]]
        execute([uv, "venv", *options, prefix], own, folder)
    if order["requirements"]:
        wanted = os.path.join(content, "requirements.txt")
        write(wanted, order["requirements"])
        where = ["--python", os.path.join(prefix, "bin", "python"), "--find-links", content]
        execute([uv, *_INSTALL, "--compile-bytecode", *where, "--requirements", wanted], own, folder)
    name_place(prefix, os.path.join(order["workdir"], "envs", order["key"], "prefix"))
    return env


def lay_out(order: Json, content: str) -> None:
    """Put the artifacts into ``content``, by name."""
    os.mkdir(content, 0o700)
    for artifact in order["artifacts"]:
        source = admit(order["workdir"], artifact)
        target = os.path.join(content, artifact["name"])
        if artifact["tool"]:
            shutil.copyfile(source, target)
            os.chmod(target, 0o700)
            continue
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            os.symlink(source, target)


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
    """Unpack a tar of a prefix; nothing of it may lie outside, nor be written there through a link."""
    root, inside = os.path.realpath(prefix), set()
    with tarfile.open(archive) as tar:
        # Python 3.14 would refuse absolute links, which prefixes may hold.
        tar.extraction_filter = lambda member, path: member
        for member in tar:
            target = os.path.join(root, member.name)
            folder = os.path.dirname(target)
            safe = folder in inside or os.path.commonpath([os.path.realpath(folder), root]) == root
            kind = member.isdir() or ((member.isreg() or member.issym()) and not os.path.lexists(target))
            if not (safe and kind) or os.pardir in member.name.split("/"):
                raise Problem("tampered", "the archive holds %r, which may not be in one" % member.name)
            inside.add(folder)
            member.mode = (member.mode or 0o600) & 0o700
            tar.extract(member, prefix, set_attrs=not member.isdir())


def check(order: Optional[Json], folder: str, manifest: Json, *, published: bool) -> Optional[Json]:
    """Let the environment's own interpreter compare itself with the manifest; a new one also tells what is there."""
    if order is None:  # it has no interpreter
        return None
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
