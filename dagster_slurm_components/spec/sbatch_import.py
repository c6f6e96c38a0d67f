"""Batch scripts as YAML: what is kept of each ``#SBATCH`` line, and what is said of those that can't be. Pure."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from dagster_slurm_components.spec.component import COMPONENT_TYPE
from dagster_slurm_components.spec.flow_style import flow_style
from dagster_slurm_components.spec.problems import problems_of
from dagster_slurm_components.spec.resources import OWNED, Resources
from dagster_slurm_components.spec.sbatch import Directive, directives, header

MOST_ELEMENTS = 1000
"""Elements of an array that are written down as partitions."""
_RANGE = re.compile(r"([0-9]{1,8})(?:-([0-9]{1,8})(?::([1-9][0-9]{0,7}))?)?")
_BODY = {
    r"\b(srun|mpirun|mpiexec|torchrun)\b": "ranks start as before; the launchers `srun` and `torchrun` do that, too",
    r"\bmodule\s+(load|add|use|purge)\b|^\s*ml\s": "modules are loaded as before; an environment has `modules`, too",
    r"\b(conda|mamba)\s+activate\b|/activate\b": "it is activated as before; see `environment`",
    r"\bSLURM_SUBMIT_DIR\b": "this is no longer your script's folder",
    r"\bSLURM_ARRAY_TASK_(COUNT|MIN|MAX|STEP)\b": "these are Slurm's own numbers, not those of the partitions",
    r"\bsbatch\b": "Dagster knows nothing of jobs that a payload submits",
}
"""What is said of lines of the body, none of which is changed."""


def yaml_entry(text: str, file: str) -> tuple[dict[str, Any], list[str]]:
    """Return a batch script as a script whose payload is its copy, and notes for a person, each with its line."""
    found, said = directives(text, file), []
    last = {each.resource[0]: each for each in found}
    entry: dict[str, Any] = {"payload": payload_name(file), **_interpreter(text)}
    asset: dict[str, Any] = {"key": re.sub(r"[^A-Za-z0-9_.\-]", "_", PurePosixPath(file).stem)}
    resources: dict[str, Any] = {}
    for each in found:
        name, value = each.resource
        if last[name] is not each:
            note = "a later line wins"
        elif name == "array" and (keys := _elements(each.value or "")):
            asset["partitions_def"] = {"type": "static", "partition_keys": keys}
            parallel = (each.value or "").partition("%")[2]
            entry["array"] = {"max_parallel": int(parallel)} if parallel else {}
            entry["op"] = {"backfill_policy": {"type": "single_run"}}
            entry.setdefault("env", {})["SLURM_ARRAY_TASK_ID"] = "{{ partition_key }}"
            note = "its elements are partitions, and SLURM_ARRAY_TASK_ID is the key of one"
        elif name == "export" and (
            pairs := re.findall(r"(?:^|,)([A-Za-z_]\w*)=([^,{]*)(?=,|$)", each.value or "")
        ):
            entry.setdefault("env", {}).update(pairs)
            note = "what has a value here is in `env`; the rest is left out"
        elif why := _why_not({**resources, name: value}, each):
            note = f"left out: {why}"
        else:
            resources[name] = value
            continue
        said.append(_said(each.position.file, each.position.line, f"{each}: {note}"))
    if resources:
        # Numbers that YAML may write as such, in the order of the lines.
        typed = Resources.model_validate(resources).model_dump(exclude_none=True)
        entry["resources"] = {name: typed[name] for name in resources}
    return {**entry, "assets": [asset]}, [*said, *_of_the_body(text, file)]


def yaml_text(scripts: Sequence[tuple[dict[str, Any], list[str]]], head: str = "") -> str:
    """Return the ``defs.yaml`` of imported scripts, below a first line for editors."""
    lines = [
        "# Made by `dg-slurm import`. The #SBATCH lines of these payloads are comments now: what counts is here.",
        "# A payload starts in a folder of its own: name what it reads there in `files`.",
        f"type: {COMPONENT_TYPE}\nattributes:\n  scripts:",
    ]
    for entry, said in scripts:
        lines += [f"    # {note}" for note in said]
        fields = [f"{name}: {flow_style(value)}" for name, value in entry.items()]
        lines.append("    - " + "\n      ".join(fields))
    return head + "\n".join(lines) + "\n"


def payload_name(file: str) -> str:
    """Return the name of the copy: of a ``.sbatch`` file the lines would count once more."""
    return PurePosixPath(file).with_suffix(".sh").name


def _said(file: str, line: int, text: str) -> str:
    """Return a note as one line that a terminal and a comment can hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in f"{file}:{line}: {text}")


def _why_not(resources: dict[str, Any], each: Directive) -> str:
    if each.option in OWNED and each.option != "no_requeue":
        return OWNED[each.option]
    if "{" in (each.value or ""):
        return "its braces would be a template; write it by hand"
    try:
        Resources.model_validate(resources)
    except ValidationError as error:
        return problems_of(error, lambda path: None)[0].message
    return ""


def _elements(value: str) -> list[str]:
    """Return the elements of an array, or none of one that can't be written down."""
    ranges, percent, parallel = value.partition("%")
    keys: dict[str, None] = {}
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or (percent and not re.fullmatch("[1-9][0-9]{0,7}", parallel)):
            return []
        elements = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
        if len(elements) + len(keys) > MOST_ELEMENTS:
            return []
        keys |= dict.fromkeys(map(str, elements))
    return list(keys)


def _interpreter(text: str) -> dict[str, Any]:
    """Return the launcher of a script that another program than bash runs."""
    first = text.split("\n", 1)[0]
    words = first[2:].split() if first.startswith("#!") else ["bash"]
    words = words[words[:1] == ["/usr/bin/env"] :]
    plain = len(words) < 2 and PurePosixPath("".join(words)).name in ("bash", "sh", "")
    return {} if plain else {"launcher": {"type": "bash", "interpreter": words}}


def _of_the_body(text: str, file: str) -> Iterator[str]:
    above = {number for number, _ in header(text)}
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#SBATCH") and number not in above:
            yield _said(
                file, number, f"{line.strip()}: below the first command, sbatch does not heed it either"
            )
        elif not line.lstrip().startswith("#"):
            notes = (note for word, note in _BODY.items() if re.search(word, line))
            yield from (_said(file, number, f"{line.strip()}: {note}") for note in notes)
