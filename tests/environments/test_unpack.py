"""Archives of a prefix on a host: links are kept as they are, and nothing is written outside."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from dagster_slurm_components.environments.host.build import unpack
from dagster_slurm_components.environments.host.tools import Problem


def archive_of(path: Path, *members: tuple[str, bytes | str]) -> str:
    """Write a tar of files (bytes) and links (text)."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(path)


def test_links_of_a_prefix_may_lead_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # What Python 3.14 does unless it is told otherwise.
    monkeypatch.setattr(
        tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter), raising=False
    )
    archive = archive_of(tmp_path / "a.tar", ("lib/a", b"A"), ("lib/b", "a"), ("etc/host", "/etc/hostname"))
    unpack(archive, str(tmp_path / "prefix"))
    assert (tmp_path / "prefix" / "lib" / "b").read_bytes() == b"A"
    assert os.readlink(tmp_path / "prefix" / "etc" / "host") == "/etc/hostname"


@pytest.mark.parametrize(
    "members",
    [
        (("../x", b""),),
        (("a/../../x", b""),),
        (("/tmp/x", b""),),
        (("out", "{outside}"), ("out/x", b"")),
        (("lib/out", "../../outside"), ("lib/out/x", b"")),
        (("x", "{outside}/x"), ("x", b"")),
    ],
)
def test_nothing_is_written_outside(members: tuple[tuple[str, bytes | str], ...], tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    named = [(name, c.format(outside=outside) if isinstance(c, str) else c) for name, c in members]
    with pytest.raises(Problem, match="which may not be in one"):
        unpack(archive_of(tmp_path / "a.tar", *named), str(tmp_path / "prefix"))
    assert list(outside.iterdir()) == []
