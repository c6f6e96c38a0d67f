"""The inputs in a working folder on a host: what it lacks, what is sent or fetched there, and their care."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dagster_slurm_components.data.host.layout import MODES
from dagster_slurm_components.data.local import Content, ContentFile
from dagster_slurm_components.environments.store import ask
from dagster_slurm_components.errors import InputFailedError, ProgramError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.transfer import batches, in_order
from dagster_slurm_components.jobs.upload import Source, upload

PROGRAM = "dagster_slurm_components.data.host.program"
"""What takes orders for inputs on the host; it is sent along with each."""
_TIMEOUT = 3600.0
_LONGEST_FETCH = 24 * 3600.0
_MANIFEST = 65_536
_HINTS = {
    "disk_full": "Nothing half there was left. `dg-slurm data prune` makes room; what has come is not sent again.",
    "full": "Raise `inputs.max` in the profile, or remove what is old: `dg-slurm data prune`.",
    "tampered": "Run it again: what differs is sent anew. If it happens again, who else writes there?",
}


@dataclass(frozen=True)
class Tree:
    """An input on a host.

    Attributes:
        folder: What the store knows it by; a job touches ``.used`` in it.
        path: The file or folder that a payload reads.
    """

    key: str
    folder: str
    path: str

    @property
    def mark(self) -> str:
        """The file that says that it is there, whole."""
        return f"{self.folder}/.ready"


@dataclass(frozen=True)
class InputStore:
    """The inputs of a working folder; no more than ``bound`` bytes of them, if that is limited."""

    satellite: Satellite
    workdir: str
    bound: int | None = None

    def tree(self, key: str, name: str) -> Tree:
        """Return where an input is, or will be."""
        folder = f"{self.workdir}/data/trees/{key}"
        return Tree(key, folder, f"{folder}/{name}")

    def ready(self, tree: Tree) -> Mapping[str, Any] | None:
        """Return what is known of an input that is there. One call."""
        (file,) = self.satellite.read([FileRead(tree.mark, 0, _MANIFEST)])
        try:
            found: Mapping[str, Any] | None = json.loads(file.data) if file.exists else None
        except ValueError:  # emptied by a crash of its disk
            return None
        return found

    def lacking(self, content: Content) -> list[ContentFile]:
        """Return of which files the host has no content yet, each content once."""
        files = list({each.object: each for each in content.files}.values())
        groups = list(batches(files, lambda each: 0))
        there = in_order(partial(self.satellite.read, self._reads(each)) for each in groups)
        pairs = [
            (each, file)
            for group, found in zip(groups, there, strict=True)
            for each, file in zip(group, found, strict=True)
        ]
        return [each for each, file in pairs if not file.exists or file.size != each.size]

    def _reads(self, files: Sequence[ContentFile]) -> list[FileRead]:
        return [FileRead(f"{self.workdir}/data/{each.object}", 0, 0) for each in files]

    def send(self, content: Content, *, got: Callable[[int], None], tell: Callable[[str, int], None]) -> Tree:
        """Bring content to the host, as far as it is not there; ``tell`` hears how many files, of how many bytes.

        Raises:
            HostError: The host gives no answer; what has come stays.
            DagsterSlurmError: There is no room for it, or it changes meanwhile.
        """
        order = {"name": content.name, "source": content.source, "is_folder": content.is_folder}
        order |= {"rows": content.rows, "folders": content.folders}
        self._upload(content, got, tell)
        try:
            answer = self.call("link", order)
        except InputFailedError as error:
            if error.code != "missing":
                raise
            self._upload(content, got, tell)  # somebody has just pruned a file that was there
            answer = self.call("link", order)
        return self.tree(answer["key"], content.name)

    def _upload(self, content: Content, got: Callable[[int], None], tell: Callable[[str, int], None]) -> None:
        wanted = self.lacking(content)
        if wanted:
            tell(f"{len(wanted)} of {len(content.files)} files", sum(each.size for each in wanted))
            objects = f"{self.workdir}/data/objects"
            self.satellite.mkdir(objects, self.workdir)
            folders = dict.fromkeys(f"{objects}/{each.sha256[:2]}" for each in wanted)
            files = [self._source(content, each) for each in wanted]
            upload(self.satellite, [(folder, 0o700) for folder in folders], files, got=got)

    def _source(self, content: Content, file: ContentFile) -> Source:
        before = content.before.get(file.name)
        like = before and replace(file, sha256=before).object
        return Source(
            file.path,
            f"{self.workdir}/data/{file.object}",
            file.size,
            file.mtime_ns,
            MODES[file.kind],
            like and f"{self.workdir}/data/{like}",
            file.sha256,
        )

    def call(
        self,
        action: str,
        order: Mapping[str, Any],
        *,
        timeout: float = _TIMEOUT,
        launcher: Sequence[str] = (),
    ) -> Any:
        """Let our program there do one action, and return its result; an InputFailedError says why it could not."""
        whole = {"workdir": self.workdir, "bound": self.bound, **order}
        try:
            return ask(self.satellite, PROGRAM, action, whole, timeout=timeout, launcher=launcher)
        except ProgramError as error:
            hint = _HINTS.get(error.code)
            raise InputFailedError(
                error.text, code=error.code, detail=error.detail, where=error.where, hint=hint
            ) from None

    def fetch(self, order: Mapping[str, Any], launcher: Sequence[str] = ()) -> tuple[Tree, Mapping[str, Any]]:
        """Let the host fetch a URL, or learn that what it has is still that; return the input, and the answer."""
        answer = self.call("fetch", order, timeout=_LONGEST_FETCH, launcher=launcher)
        return self.tree(answer["key"], answer["name"]), answer
