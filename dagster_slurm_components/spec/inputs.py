"""What a payload reads, by the names that a user gives it: assets, files of this machine, and what the network has."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from dagster_slurm_components.spec.base import Alone, Flag, Format, Word, shape
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.place import Locate
from dagster_slurm_components.spec.problems import Problem
from dagster_slurm_components.spec.slurm_values import Memory
from dagster_slurm_components.spec.templates import is_template
from dagster_slurm_components.units import parse_size

ASSET, FILE = "asset:", "file:"
_SOURCE = r"(?:asset:[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*|file:(?!//).+|[A-Za-z][A-Za-z0-9+.\-]*://.+)"
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
VARIABLE = "DAGSTER_SLURM_INPUT_"
"""How the variables begin that tell payloads where their inputs are."""


def _source(source: str) -> str:
    if not (re.fullmatch(_SOURCE, source) or is_template(source)):
        hint = "write `asset:datasets/images`, `file:data/table.csv` or `https://example.org/zoo.tar`"
        raise mistake(f"{source!r} is neither an asset, a file nor a URL", hint, "input")
    return source


class FetchOn(Model):
    """Where a URL is fetched: on a machine, or in a job of its own in a partition whose nodes have a network."""

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("where", "partition"),)
    needs_one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("where", "partition"),)

    where: Literal["login", "here"] | None = option(
        "On the `login` node, or `here`, on Dagster's machine.", "here"
    )
    partition: Word | None = option("The partition of the job.", "datamover")
    account: Word | None = option("Who pays; else the account of the script.", "ab0123")
    qos: Word | None = option("Its quality of service.", "transfer")
    time: Word | None = option("Its time limit, in quotes.", "02:00:00")


class Input(Model):
    """One input."""

    source: Annotated[Word, AfterValidator(_source), shape("string", pattern=_SOURCE)] = required(
        "`asset:KEY`, `file:PATH` on Dagster's machine, or a URL.", "asset:datasets/images"
    )
    output: Word | None = option("Which output of the asset it is, where that has several.", "images")
    sha256: Annotated[Word, Format(r"[0-9a-f]{64}", "a SHA-256", "64 hexadecimal digits")] | None = option(
        "What a URL has to give; then it is fetched once, and never asked again.", "0" * 64
    )
    unpack: Flag = option("Unpack a tar or zip file; the input is the folder.", True, default=False)
    fetch_on: Annotated[FetchOn, Alone("where")] | None = option(
        "Where a URL is fetched; by default http and https on the login node, others here.", "here"
    )
    max: Memory | None = option("The most bytes that a URL may give; a number alone is mebibytes.", "200G")

    @property
    def most(self) -> int | None:
        """The most bytes that a URL may give, if that is limited."""
        return None if self.max is None else parse_size(self.max, default_unit="M")

    @property
    def asset(self) -> str | None:
        """The key of the asset that it is, if it is one."""
        return self.source.removeprefix(ASSET) if self.source.startswith(ASSET) else None

    @property
    def file(self) -> str | None:
        """The path on Dagster's machine, if it is one."""
        return self.source.removeprefix(FILE) if self.source.startswith(FILE) else None


InputName = Annotated[str, Format(_NAME, "the name of an input: letters, digits and `_`", "images")]
Inputs = dict[
    InputName,
    Annotated[Input, Alone("source")],
]


def variable(name: str) -> str:
    """Return the variable that tells a payload where an input is.

    >>> variable("name")
    'DAGSTER_SLURM_INPUT_NAME'
    """
    return f"{VARIABLE}{name.upper()}"


def assets_of(inputs: Mapping[str, Input]) -> Iterable[str]:
    """Return the keys of the assets among inputs, each once, in order."""
    return dict.fromkeys(each.asset for each in inputs.values() if each.asset is not None)


def input_problems(inputs: Mapping[str, Input], position_of: Locate) -> Iterator[Problem]:
    """Yield inputs with one variable, and what is said of one that does not fit its kind."""
    seen: dict[str, str] = {}
    for name, each in inputs.items():
        if (other := seen.setdefault(name.upper(), name)) != name:
            text = f"the inputs `{other}` and `{name}` differ by case alone"
            yield Problem.at(position_of, ("inputs", name), text, "rename one", "inputs")
        if is_template(each.source):
            continue
        is_url = each.asset is None and each.file is None
        for field, fits, what in (
            ("output", each.asset is not None, "an asset"),
            ("unpack", each.asset is None, "a file or a URL"),
            *((field, is_url, "a URL") for field in ("sha256", "fetch_on", "max")),
        ):
            if getattr(each, field) not in (None, False) and not fits:
                text = f"`{field}` is said of {what}, and `{each.source}` is none"
                yield Problem.at(position_of, ("inputs", name, field), text, "leave it out", "inputs")
