"""Documents, typed: a page's files are written and its commands run as a reader would do it, from the top down.

A page says where its reader sits, and a block why nobody types it, in comments that readers don't see::

    <!-- typed in: a project -->
    <!-- not typed: it needs a login node -->

``a clone`` is one of this repository with its ``.venv`` made, ``a project`` one that the template made, its environment
activated, ``a folder`` an empty one. ``with a cluster`` after any of them gives it the tests' Slurm, which is
``login.example.org`` and `production` there, and ``with a job`` one that has run on it, which the page calls 4711.
What a page quotes below a command it has to say, line after line, numbers and run ids aside; ``...`` is anything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from waiting import PATIENCE

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
TITLE = re.compile(r"(?:#[^\n]*\n)*?(?:#|//) ((?:[\w.-]+/)*[\w.-]+\.\w+)(?: |\n)")
STAGE = re.compile(r"^<!-- typed in: ([^\n,]*)(?:, with (a cluster|a job))? -->$", re.MULTILINE)
REASON = re.compile(r"<!-- not typed: (\S[^\n]*) -->\n*\Z")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SERVES = re.compile(r"\bdg dev\b")


@dataclass(frozen=True)
class Command:
    """What stands behind a ``$``, and the lines that the page quotes below it."""

    line: int
    text: str
    quoted: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A block whose first comment is the path of a file."""

    path: str
    text: str


@dataclass(frozen=True)
class Page:
    """What a reader of one document does."""

    stage: str | None
    needs: str | None
    """``a cluster``, ``a job``."""
    steps: tuple[Command | File, ...]
    untyped: Mapping[int, str] = field(default_factory=dict)
    """The reason, by the line of a block that nobody types."""


def parse(document: str) -> Page:
    """Return what a document asks of its reader."""
    stage = STAGE.search(document)
    steps: list[Command | File] = []
    untyped = {}
    for fence in FENCE.finditer(document):
        indent, language, text = fence.groups()
        text = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        line = document.count("\n", 0, fence.start()) + 1
        if reason := REASON.search(document[: fence.start()]):
            untyped[line] = reason[1]
        elif language == "console":
            steps += commands(text, line + 1)
        elif title := TITLE.match(text):
            steps.append(File(title[1], text))
    return Page(stage[1] if stage else None, stage[2] if stage else None, tuple(steps), untyped)


def commands(block: str, line: int) -> list[Command]:
    """Return the commands of a console block; ``> `` begins a line that continues one."""
    found: list[Command] = []
    for number, text in enumerate(block.splitlines(), start=line):
        if text.startswith("$ "):
            found.append(Command(number, text[2:]))
        elif found:
            last = found[-1]
            if text.startswith("> ") and not last.quoted:
                found[-1] = Command(last.line, f"{last.text}\n{text[2:]}")
            else:
                found[-1] = Command(last.line, last.text, (*last.quoted, text))
    return found


def is_said(quoted: tuple[str, ...], output: str) -> bool:
    """Return whether the output has the quoted lines, in their order; numbers and ids may differ."""
    said = iter([_plain(line) for line in ANSI.sub("", output).splitlines()])
    wanted = [_plain(line) for line in quoted if line.strip() not in ("", "...")]
    return all(any(re.fullmatch(_pattern(line), other) for other in said) for line in wanted)


def _plain(line: str) -> str:
    line = re.sub(r"\b[0-9a-f]{8}\b(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?|\d+([.,:]\d+)*", "0", line)
    return " ".join(line.split())


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part.strip()) + " ?" if part else "" for part in line.split("..."))


def add(present: str, text: str) -> str:
    """Return a file's text after a reader took a block over: a profile keeps what the block doesn't speak of."""
    if not re.search(r"^host:", present, re.MULTILINE):
        return text
    return yaml.safe_dump({**yaml.safe_load(present), **yaml.safe_load(text)}, sort_keys=False)


@dataclass
class Terminal:
    """One reader's shell: its folder and variables last from command to command."""

    cwd: Path
    env: dict[str, str]
    state: Path
    """A file of its own."""
    timeout_s: float = 300

    def type(self, command: str) -> tuple[int, str]:
        """Run a command; return its status and what it wrote. One that serves is interrupted once it does."""
        script = f'{command}\nstatus=$?\nenv -0 >"$TYPED_STATE"\npwd >"$TYPED_STATE.cwd"\nexit $status\n'
        output = self.state.with_suffix(".output")
        with output.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.cwd,
                env={**self.env, "TYPED_STATE": str(self.state)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = (
                    self._serve(process, output) if SERVES.search(command) else process.wait(self.timeout_s)
                )
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        self._remember()
        return status, output.read_text(errors="replace")

    def _serve(self, process: subprocess.Popen[bytes], output: Path) -> int:
        """Wait until it serves, interrupt it as Ctrl-C does, and return 0 if it ended by that."""
        end = time.monotonic() + self.timeout_s
        while "Serving dagster-webserver" not in output.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                return process.poll() or 1
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)
        return 0

    def _remember(self) -> None:
        if self.state.exists():
            pairs = self.state.read_text().rstrip("\0").split("\0")
            self.env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            self.cwd = Path(self.state.with_name(f"{self.state.name}.cwd").read_text().rstrip("\n"))


def perform(page: Page, terminal: Terminal, *, adapt: Callable[[str], str] = str) -> str:
    """Do what a page says; return what was seen, and raise AssertionError at the first thing that is not as it says.

    ``adapt`` puts this machine's places into files that name the reader's.
    """
    seen = []
    for step in page.steps:
        if isinstance(step, File):
            path = terminal.cwd / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(adapt(add(path.read_text() if path.exists() else "", step.text)))
            continue
        status, output = terminal.type(adapt(step.text))
        seen.append(f"$ {step.text}\n{output}")
        story = "".join(seen)[-8000:]
        assert status == 0, f"line {step.line}: status {status}\n{story}"
        assert is_said(step.quoted, output), f"line {step.line} quotes\n{chr(10).join(step.quoted)}\n{story}"
    return "".join(seen)
