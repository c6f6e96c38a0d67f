"""A commit of a git repository, as files: by git itself, with its submodules and with git's own logins."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.host.store import without_login
from dagster_slurm_components.environments.logins import Login, login_for
from dagster_slurm_components.environments.machine import run_program
from dagster_slurm_components.errors import EnvironmentFailedError

# A repository that is packed by itself in the background outlives the command, and the folder that it lies in.
_GIT = ("git", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
# What git tells its hooks: started by one, we would work in the user's own repository.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
# Asked by git after its own helpers and ~/.netrc. So the login stands in no argument list, which all users can read.
_HELPER = """!f() { test "$1" != get || printf 'username=%s\\npassword=%s\\n' "$DS_GIT_USER" "$DS_GIT_PASSWORD"; }; f"""


def checkout(source: Artifact, place: Path, *, large_files: bool, what: str, where: str) -> None:
    """Put the files of a commit, which is the identity of ``source``, into a folder; ``what`` and ``where`` name it.

    Of all history only the commits come, for versions that are made from tags.

    Raises:
        EnvironmentFailedError: There is no git, or it says no.
    """
    commit, url = source.identity or "", source.url or ""
    shown, env = _asked(url, source.lock or "")
    if shutil.which("git") is None:
        raise EnvironmentFailedError(f"{what} needs the program git", where=where, hint="Install git here.")

    def git(*argv: str) -> None:
        hint = f"`git ls-remote {shown}` must succeed on this machine, and ask nothing: logins come from ~/.netrc,"
        hint += " git's credential helpers or ssh keys. If the commit is gone from there, lock anew."
        run_program([*_GIT, *argv], where=where, says=f"{what} can't be had: git says", hint=hint, env=env)

    inside = ("-C", str(place))
    git("clone", "--quiet", "--no-checkout", "--filter=blob:none", "--", shown, str(place))
    known = [*_GIT, *inside, "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(known, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        git(*inside, "fetch", "--quiet", "origin", commit)  # no branch or tag has it
    git(*inside, "checkout", "--quiet", "--detach", commit)
    git(*inside, "submodule", "--quiet", "update", "--init", "--recursive")
    if large_files:
        git(*inside, "lfs", "install", "--local")
        git(*inside, "lfs", "pull")


def _asked(url: str, lock: str) -> tuple[str, Mapping[str, str]]:
    """Return a repository's address without its login, and the variables by which git gets that."""
    # As uv: large files come only where the lock says so, and nobody is there to answer a question.
    env = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url, env
    own = Login(unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    shown, login = without_login(url), own or login_for(url, lock)
    if login is not None:
        number = int(env.get("GIT_CONFIG_COUNT") or 0)
        server = f"{parts.scheme}://{urlsplit(shown).netloc}"
        env |= {
            "GIT_CONFIG_COUNT": str(number + 1),
            "DS_GIT_USER": login.user,
            "DS_GIT_PASSWORD": login.password,
        }
        env |= {
            f"GIT_CONFIG_KEY_{number}": f"credential.{server}.helper",
            f"GIT_CONFIG_VALUE_{number}": _HELPER,
        }
    return shown, env
