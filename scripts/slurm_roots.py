"""Make Debian systems beside this one, in folders, and run commands inside: for tests on other versions of Slurm.

Usage: slurm_roots.py make NAME | enter NAME COMMAND [ARG...] | remove NAME

NAME is a release of Debian: ``bookworm`` (12), ``trixie`` (13) or ``sid`` (unstable), with Slurm and what else the
tests need; ``trixie-bare`` and ``sid-bare`` have python3, make and git only. A root is made once, in ``.cache/roots``
or the folder that DAGSTER_SLURM_ROOTS names, and ``enter`` makes one that is missing. Inside, the checkout and the
folder DAGSTER_SLURM_SCRATCH, if that is set, lie where they lie outside; all else that a command changes stays in
the root.

Needs root, debootstrap, and a mirror of Debian: DAGSTER_SLURM_MIRROR, or the one that this system uses.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ENTER = CHECKOUT / "scripts" / "enter_root.sh"
sys.path.insert(0, str(CHECKOUT))

from scripts.debian_mirror import mirror  # noqa: E402
from scripts.making import CannotMakeError, exit_code  # noqa: E402
from slurm_testcluster.lock import folder_lock  # noqa: E402
from slurm_testcluster.packages import PACKAGES, PLUGINS  # noqa: E402

BARE = ("ca-certificates", "python3", "python3-venv", "make", "git")
TESTS = ("openssh-server", "openssh-client", "procps", "hostname", "sudo")
CONTAINERS = ("apptainer", "charliecloud", "squashfuse", "squashfs-tools", "fuse3")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT = ("apt-get", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0")
# What the machine says about how packages are to be fetched; a stored mirror's lists may have expired.
_OF_APT = re.compile(r"^Acquire::(?:https?|Retries|Check-\S*|ForceIPv4)\b.*", re.MULTILINE)
_SETTINGS_OF_PIP = ("/etc/pip.conf", "/root/.pip/pip.conf", "/root/.config/pip/pip.conf")


@dataclass(frozen=True)
class Root:
    """A root, made or not.

    Attributes:
        name: Its folder's name.
        suite: Debian's release.
        packages: What is installed beside the essential packages.
    """

    name: str
    suite: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return cache() / self.name

    @property
    def stamp(self) -> Path:
        """The file that says what a whole root was made of; a root without it was interrupted."""
        return self.folder / "etc" / "slurm-root"

    def is_whole(self) -> bool:
        """Whether it is there, made of these packages."""
        return self.stamp.exists() and self.stamp.read_text() == "\n".join(self.packages)

    def lock(self, how: int) -> int:
        """Lock it, shared to use it or exclusively to change it, until the descriptor is closed."""
        cache().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache() / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, how)
        return descriptor

    def ensure(self) -> None:
        """Make it if it is missing; who makes one of the same release meanwhile is waited for.

        Raises:
            CannotMakeError: It can't be made here.
        """
        if self.is_whole():
            return
        _check_machine()
        with folder_lock(cache() / "debs" / self.suite):
            if self.is_whole():
                return
            descriptor = self.lock(fcntl.LOCK_EX)
            try:
                _make(self)
            finally:
                os.close(descriptor)

    def argv(self, command: list[str], shared: list[str]) -> list[str]:
        """Return the command line that runs a command inside, without what this machine's PATH names."""
        namespaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
        inside = ("env", "-u", "TMPDIR", f"PATH={PATH}", "HOME=/root", "USER=root", "LANG=C.UTF-8", *command)
        enter = ("/bin/sh", str(ENTER), str(self.folder))
        return ["unshare", *namespaces, *enter, *shared, "--", *inside]


SLURM = (*BARE, *TESTS, *PACKAGES, *PLUGINS)
ROOTS = {
    root.name: root
    for root in (
        Root("bookworm", "bookworm", SLURM),
        Root("trixie", "trixie", SLURM),
        Root("sid", "sid", (*SLURM, *CONTAINERS)),
        Root("trixie-bare", "trixie", BARE),
        Root("sid-bare", "sid", BARE),
    )
}


def cache() -> Path:
    """Return where roots lie."""
    chosen = os.environ.get("DAGSTER_SLURM_ROOTS")
    return Path(chosen).resolve() if chosen else CHECKOUT / ".cache" / "roots"


def _check_machine() -> None:
    if os.getuid() != 0:
        raise CannotMakeError("a Debian root can be made by root only (sudo)")
    for program in ("debootstrap", "unshare", "pivot_root"):
        if shutil.which(program) is None:
            raise CannotMakeError(f"{program} is missing: apt-get install debootstrap util-linux")


def _make(root: Root) -> None:
    print(f"making the root {root.name} in {root.folder} (two minutes)", file=sys.stderr, flush=True)
    source = mirror()
    if source is None:
        raise CannotMakeError("no mirror of Debian is known here: name one in DAGSTER_SLURM_MIRROR")
    debs = cache() / "debs" / root.suite
    remove(root)
    # Which keys a release is signed with, an old machine may not know: debootstrap then says so and stops.
    options = ("--variant=minbase", f"--cache-dir={debs}", "--include=ca-certificates")
    _run(["debootstrap", *options, root.suite, str(root.folder), source])
    _settings(root, source)
    keep = ["-o", f"Dir::Cache::archives={debs}", "-o", "APT::Sandbox::User=root"]
    for command in (
        ["update-ca-certificates"],
        ["apt-get", "update"],
        [*APT, *keep, "install", *root.packages],
    ):
        _run(root.argv(command, [str(debs), "/etc/resolv.conf"]))
    root.stamp.write_text("\n".join(root.packages))


def _settings(root: Root, source: str) -> None:
    """Copy what this machine knows of proxies, certificates and package indexes; no daemon starts by itself."""
    settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False)
    files = {
        "etc/apt/sources.list": f"deb {source} {root.suite} main\n",
        "etc/apt/apt.conf.d/machine": "\n".join(_OF_APT.findall(settings.stdout)) + "\n",
        # A root is made anew rather than repaired.
        "etc/dpkg/dpkg.cfg.d/fast": "force-unsafe-io\n",
        "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
    }
    files.update(
        {name.lstrip("/"): Path(name).read_text() for name in _SETTINGS_OF_PIP if Path(name).exists()}
    )
    for name, text in files.items():
        file = root.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root.folder / "usr/sbin/policy-rc.d").chmod(0o755)
    own = Path("/usr/local/share/ca-certificates")
    if own.is_dir():
        shutil.copytree(own, root.folder / own.relative_to("/"), dirs_exist_ok=True)


def _run(argv: list[str]) -> None:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        print(*done.stdout.splitlines()[-20:], sep="\n", file=sys.stderr)
        told = [line for line in done.stdout.splitlines() if line.startswith(("E:", "Err:"))]
        raise CannotMakeError(
            f"{' '.join(argv[:1])} ended with {done.returncode}: {told[-1] if told else 'see above'}"
        )


def remove(root: Root) -> None:
    """Remove it. Mounts are seen inside alone; should there be one, what lies there is not ours to remove."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(root.folder)], check=True)


def shared() -> list[str]:
    """Return what is seen inside where it lies outside, folders of wheels that pip's settings name among it."""
    texts = [Path(name).read_text() for name in _SETTINGS_OF_PIP if Path(name).exists()]
    texts += [value for name, value in os.environ.items() if name.startswith("PIP_")]
    named = {
        Path(path) for text in texts for path in re.findall(r"(?:file://|(?<![\w:/.]))(/[\w./-]+)", text)
    }
    # What an index (`.../simple`) links to lies beside it.
    wheels = sorted({str(path.parent if path.name == "simple" else path) for path in named if path.is_dir()})
    scratch = os.environ.get("DAGSTER_SLURM_SCRATCH")
    writable = [str(CHECKOUT), *([str(Path(scratch).resolve())] if scratch else [])]
    return [*(f"ro:{path}" for path in ("/etc/resolv.conf", "/etc/hosts", *wheels)), *writable]


def enter(root: Root, command: list[str]) -> None:
    """Become a command inside; a root that is in use can't be removed."""
    root.ensure()
    # `unshare` keeps this open until all inside has ended; the command does not inherit it.
    os.dup2(root.lock(fcntl.LOCK_SH), 9)
    argv = root.argv(command, shared())
    os.execvp(argv[0], argv)  # noqa: S606 -- no shell, on purpose


def main() -> int:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["make", name] if name in ROOTS:
            act = ROOTS[name].ensure
        case ["enter", name, *command] if name in ROOTS and command:

            def act() -> None:
                enter(ROOTS[name], command)
        case ["remove", name] if name in ROOTS:

            def act() -> None:
                ROOTS[name].lock(fcntl.LOCK_EX)
                remove(ROOTS[name])
        case _:
            print(f"{__doc__}\nThere are: {', '.join(ROOTS)}.", file=sys.stderr)
            return 2
    return exit_code(act)


if __name__ == "__main__":
    sys.exit(main())
