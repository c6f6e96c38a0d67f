"""Whatever fsspec can read (s3, gcs, sftp, ...), fetched to this machine."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.host.store import without_login
from dagster_slurm_components.environments.machine import cache_folder, digest_of
from dagster_slurm_components.errors import InputFailedError
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.units import format_size


def fetch_here(url: str, most: int | None, tell: Callable[[str], None]) -> Path:
    """Return a file or folder behind a URL, in this machine's cache; it is fetched again where it has changed.

    Credentials are those of fsspec's own configuration, and of its file systems.

    Raises:
        InputFailedError: There is no such thing, it has more than ``most`` bytes, or a package is missing.
    """
    plain = without_login(url)
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - few need it

        file_system, path = fsspec.core.url_to_fs(url)
        facts, state = file_system.info(path), str(file_system.ukey(path))
    except ImportError as error:
        hint = "Install it beside Dagster, for instance `pip install s3fs` for s3."
        raise InputFailedError(f"{plain} needs a package of fsspec: {error}", hint=hint) from error
    except Exception as error:  # each file system has its own
        raise _failed(plain, error) from error
    # Of another state it is in another folder: a job that waits may read it here.
    target = cache_folder("fetched", digest_of("fsspec", url, state)) / last_part(path)
    if target.exists():
        return target
    try:
        size = file_system.du(path)
        if most is not None and size > most:
            raise InputFailedError(f"{plain} has {format_size(size)}, and `max` is {format_size(most)}")
        tell(f"{plain}, {format_size(size)}, is fetched.")
        part = target.with_name(".part")
        remove_tree(str(part))
        file_system.get(path, str(part), recursive=facts["type"] == "directory")
        os.rename(part, target)
    except InputFailedError:
        raise
    except Exception as error:
        raise _failed(plain, error) from error
    return target


def last_part(path: str) -> str:
    """Return the name of what comes from a path: its last part, if that is one."""
    last = str(path).rstrip("/").rpartition("/")[2]
    return last if last not in ("", ".", "..") else "content"


def _failed(url: str, error: Any) -> InputFailedError:
    return InputFailedError(f"{url} can't be fetched: {type(error).__name__}: {error}")
