"""The ledger of a run directory."""

import os
from typing import Optional, Tuple

from dagster_slurm_components.hosts.satellite.files import read_file
from dagster_slurm_components.hosts.satellite.protocol import Failure, as_text, native


class Entries:
    """What a ledger says: the file that proves whether, and as what job, a run directory was submitted.

    Lines ``KEY=VALUE``, only ever appended:

    * ``token``: the mark that the job carries in its name
    * ``intent``: epoch; from here on a job may exist
    * ``job_id``: it does
    * ``rejected``, ``void``: epoch; the last intent made no job (refused, or the process never ran)
    * ``released``: pid; written by the started process itself just before it becomes the job
    * ``adopted``, ``submitted``: epoch; for the reader
    """

    def __init__(self) -> None:
        self.token: Optional[str] = None
        self.intent: Optional[int] = None
        self.job_id: Optional[str] = None
        self.released = False
        self.submitted: Optional[int] = None

    def read(self, text: str, where: str = "ledger") -> None:
        """Apply all lines; a last one that a crash has torn is none."""
        for number, line in enumerate(text.split("\n")[:-1], 1):
            name, _, value = line.partition("=")
            try:
                self.apply(name, value)
            except ValueError:
                raise Failure("bad_ledger", f"{where}:{number}: can't read {line!r}") from None

    def apply(self, name: str, value: str) -> None:
        """Take a line in."""
        if name == "token":
            self.token = value
        elif name in ("intent", "rejected", "void"):
            self.intent, self.job_id, self.released = int(value) if name == "intent" else None, None, False
        elif name == "job_id":
            self.job_id = value
        elif name == "released":
            self.released = True
        elif name in ("submitted", "adopted"):
            self.submitted = int(value)


class Ledger(Entries):
    """The ledger of a run directory on this machine."""

    def __init__(self, folder: bytes) -> None:
        super().__init__()
        self.path = os.path.join(folder, b"ledger")
        self.read(as_text(read_file(self.path) or b""), as_text(self.path))

    def append(self, *lines: Tuple[str, object]) -> None:
        """Add lines, on disk when this returns."""
        text = "".join(f"{name}={value}\n" for name, value in lines)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            # A machine's crash may have torn the last line, and a torn job id is a wrong one.
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, 4096, max(0, size - 4096))
            if tail and not tail.endswith(b"\n"):
                os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
            file.write(native(text))
            file.flush()
            os.fsync(descriptor)
        for name, value in lines:
            self.apply(name, str(value))
