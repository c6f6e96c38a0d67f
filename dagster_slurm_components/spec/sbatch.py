r"""The ``#SBATCH`` lines of a batch script, read as sbatch reads them (``slurm/header.py`` says how), in our words."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.place import KeyPath, Position
from dagster_slurm_components.spec.resources import FLAGS, OWNED, Resources

SUFFIXES = (".sbatch", ".slurm")
"""Payloads whose own ``#SBATCH`` lines are resources."""
UNNEEDED = frozenset({"comment", "error", "job_name", "open_mode", "output", "parsable", "quiet"})
"""Options that a payload may ask for in vain: its name and the files of its output are the run directory's."""
_LETTERS = (
    "A:account B:extra_node_info C:constraint D:chdir G:gpus H:hold J:job_name L:licenses M:clusters N:nodes"
    " O:overcommit Q:quiet S:core_spec W:wait a:array b:begin c:cpus_per_task d:dependency e:error i:input"
    " k:no_kill m:distribution n:ntasks o:output p:partition q:qos s:oversubscribe t:time w:nodelist x:exclude"
)
_SHORT = dict(pair.split(":") for pair in _LETTERS.split())
_OLD = {"share": "oversubscribe", "tasks_per_node": "ntasks_per_node", "workdir": "chdir"}
_LONG = {*Resources.model_fields, *OWNED, *_OLD}


@dataclass(frozen=True)
class Directive:
    """One option: its long name with underscores, or a word that is none; its value, if it has one; where it begins."""

    option: str
    value: str | None
    position: Position

    @property
    def resource(self) -> tuple[str, Any]:
        """The field of ``Resources`` and its value; some options mean more than true without one."""
        if self.option == "no_requeue":
            return "requeue", False
        alone = {"nice": 100, "propagate": "ALL"}.get(self.option, True)
        return self.option, alone if self.value is None else self.value

    def __str__(self) -> str:
        """Show it as sbatch's long option."""
        name = f"--{self.option.replace('_', '-')}"
        return name if self.value is None else f"{name}={self.value}"


def directives(text: str, file: str) -> list[Directive]:
    r"""Return the options of a batch script in their order; of one that is repeated sbatch heeds the last.

    >>> [str(each) for each in directives("#!/bin/bash\n#SBATCH -N2 --mem 4G # for all\n", "a.sbatch")]
    ['--nodes=2', '--mem=4G']
    """
    words = _words(text, file)
    found = []
    for word, position in words:
        for name, value, wants in _options(word):
            following = next(words, None) if wants else None
            found.append(Directive(name, following[0] if following else value, position))
    return found


def header(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each ``#SBATCH`` line that sbatch heeds: those above the first command."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#SBATCH"):
            yield number, line
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def sbatch_layer(file: Path) -> Layer:
    """Return what a payload's own lines ask for; options that can't be kept stand there as the mistakes they are."""
    found = directives(file.read_text("utf-8", "surrogateescape"), str(file))
    kept = {each.resource[0]: each for each in found if each.option not in UNNEEDED}
    places: dict[KeyPath, Position] = {("resources", name): each.position for name, each in kept.items()}
    data = {"resources": dict(each.resource for each in kept.values())}
    return Layer("#SBATCH", data, lambda path: places.get(path[:2], Position(str(file), 1, 1)))


def _words(text: str, file: str) -> Iterator[tuple[str, Position]]:
    """Yield each word and where it begins; a backslash takes the next character as it is, in quotes or not."""
    for number, line in header(text):
        word, start, quote, escaped = "", 0, "", False
        for at, letter in enumerate(f"{line[7:]} ", 8):
            if not (quote or escaped) and letter in " \t\v\f\r#":
                if start:
                    yield word, Position(file, number, start)
                if letter == "#":
                    break
                word, start = "", 0
                continue
            start = start or at
            if escaped or letter not in "\\\"'" or (quote and letter not in ("\\", quote)):
                word, escaped = word + letter, False
            elif letter == "\\":
                escaped = True
            else:
                quote = "" if quote else letter
        else:
            if start:  # quotes that do not end
                yield word.rstrip(), Position(file, number, start)


def _options(word: str) -> Iterator[tuple[str, str | None, bool]]:
    """Yield the options of a word: name, value, and whether the next word is its value."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        option = _whole(name.replace("-", "_"))
        yield option, value if equals else None, not equals and _needs_value(option)
    elif len(word) < 2 or word[0] != "-":
        yield word, None, False
    else:
        for at, letter in enumerate(word[1:], 2):
            option, rest = _SHORT.get(letter, f"-{letter}"), word[at:]
            attached = rest if _needs_value(option) or letter in "ks" else ""
            yield option, attached or None, _needs_value(option) and not rest
            if attached:
                return


def _whole(name: str) -> str:
    """Return an option's whole name: getopt takes a beginning of it that no other has."""
    begun = [option for option in _LONG if option.startswith(name)]
    name = begun[0] if len(begun) == 1 else name
    return _OLD.get(name, name)


def _needs_value(option: str) -> bool:
    return option in _LONG and option.replace("_", "-") not in FLAGS
