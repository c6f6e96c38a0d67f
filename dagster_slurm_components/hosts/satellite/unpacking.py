"""A bundle becomes a run directory; nothing of it may lie elsewhere."""

import io
import os
import shutil
import tarfile
import time
from typing import Any, Optional

from dagster_slurm_components.hosts.satellite.files import make_folder, remove_tree, temporary_name
from dagster_slurm_components.hosts.satellite.leases import Claim, read_lease
from dagster_slurm_components.hosts.satellite.ledger import Ledger
from dagster_slurm_components.hosts.satellite.protocol import CHUNK, Failure, native

MAX_UNPACKED = 4 * 1024 * 1024 * 1024


def unpack(bundle: bytes, folder: bytes, token: str, claim: Optional[Claim] = None) -> Ledger:
    """Make the run directory from a bundle, with a lease and an intent in its ledger; older ones are kept."""
    temporary = temporary_name(folder)
    try:
        os.mkdir(temporary, 0o700)
        _extract(bundle, temporary)
        if not os.path.isdir(folder):
            # Renamed with both inside: there is no moment at which the folder lacks its ledger or its lease.
            ledger = Ledger(temporary)
            ledger.append(("token", token), ("intent", int(time.time())))
            if claim is not None:
                claim.write(temporary)
            os.rename(temporary, folder)
        else:
            for name in os.listdir(temporary):
                remove_tree(os.path.join(folder, name))
                os.rename(os.path.join(temporary, name), os.path.join(folder, name))
            if claim is not None and read_lease(folder) is None:
                claim.write(folder)  # it had lost its records, as by a removal that was cut off
            Ledger(folder).append(("token", token), ("intent", int(time.time())))
    finally:
        remove_tree(temporary)
    return Ledger(folder)


def _extract(bundle: bytes, folder: bytes) -> None:
    # By hand: tarfile's extraction filters came with 3.12, and a bundle is only ever files and folders.
    mode: Any = "r:gz" if bundle[:2] == b"\x1f\x8b" else "r:"
    total = 0
    try:
        with tarfile.open(
            fileobj=io.BytesIO(bundle), mode=mode, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                path = _safe_path(member, folder)
                total += member.size
                if total > MAX_UNPACKED:
                    raise Failure("unsafe_bundle", f"the bundle unpacks to more than {MAX_UNPACKED} bytes")
                if member.isdir():
                    make_folder(path)
                else:
                    make_folder(os.path.dirname(path))
                    _extract_file(tar, member, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the bundle's (gzip says OSError without a number)
        raise Failure("bad_bundle", f"the bundle can't be read: {error}") from error


def _safe_path(member: tarfile.TarInfo, folder: bytes) -> bytes:
    name = native(member.name)
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    plain = member.isdir() or (member.isreg() and not member.issparse() and parts)
    if not plain or name.startswith(b"/") or b".." in parts or parts in ([b"ledger"], [b"lease"]):
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r}, which may not be in one")
    return os.path.join(folder, *parts)


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
    mode = 0o700 if member.mode & 0o111 else 0o600
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r} twice") from None
    source = tar.extractfile(member)
    with os.fdopen(descriptor, "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target, CHUNK)
