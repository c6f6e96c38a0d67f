"""Runs a notebook once, as a payload: its executed copy, its pictures and its HTML page come to lie beside it.

Usage: run_notebook.py NOTEBOOK [--NAME=VALUE | --NAME VALUE]...

Needs nbclient and the notebook's kernel; nbconvert for the page, and papermill for parameters in another language than
Python. Values are JSON, or else text. They are set in a cell behind the one with the tag ``parameters``, as papermill
does; a parameter ``partition_key`` is the run's, if nothing else is given. Exit code 1: a cell failed.
"""

import ast
import asyncio
import base64
import json
import os
import re
import signal
import sys
import tempfile
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

EXECUTED, PAGE, PICTURES = ".executed.ipynb", ".html", ".pictures"
"""What the names of the results end in, instead of ``.ipynb``."""
_PARTITION = ("partition_key", "DAGSTER_SLURM_PARTITION_KEY")
_INJECTED = "injected-parameters"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 60
"""Characters of a folder in which the names of a kernel's sockets are not too long for Linux (107 in all)."""
_SHOWN = 30
"""Lines that are shown of the cell that failed."""


class Failure(NamedTuple):
    """The cell that failed, of so many, what is told of it, and the signal that ended it, if one did."""

    cell: int
    cells: int
    told: str
    signal: Optional[int]


class UsageError(Exception):
    """What can't be run, or not with these arguments; said without a traceback."""


def read_arguments(words: Sequence[str]) -> Dict[str, Any]:
    """Return the parameters that a command line gives.

    >>> read_arguments(["--epochs", "3", "--name=a b", "--day", "2024-01-01"])
    {'epochs': 3, 'name': 'a b', 'day': '2024-01-01'}
    """
    given = {}  # type: Dict[str, Any]
    rest = list(words)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not re.match(r"--[A-Za-z_]\w*\Z", name):
            raise UsageError("{!r} names no parameter: write --NAME VALUE".format(name))
        if not equals and not rest:
            raise UsageError("{} has no value".format(name))
        text = text if equals else rest.pop(0)
        try:
            given[name[2:]] = json.loads(text)
        except ValueError:
            given[name[2:]] = text
    return given


def declared(source: str) -> List[str]:
    r"""Return the names that Python code assigns to, in their order; IPython's own lines are left out.

    >>> declared("%matplotlib inline\nepochs = 3\nrate: float = 0.1")
    ['epochs', 'rate']
    """
    names = []
    for statement in ast.parse(re.sub(r"(?m)^[%!?].*", "", source)).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def tagged(cell: Any, tag: str) -> bool:
    """Return whether a cell has a tag."""
    return tag in cell.metadata.get("tags", ())


def parameterize(notebook: Any, given: Dict[str, Any], partition: Optional[str], where: str) -> None:
    """Insert a cell that sets a notebook's parameters, behind the one that declares them."""
    from nbformat.v4 import new_code_cell

    # Those of an earlier execution, where this is the copy that it left.
    notebook.cells = [cell for cell in notebook.cells if not tagged(cell, _INJECTED)]
    found = [at for at, cell in enumerate(notebook.cells) if tagged(cell, "parameters")]
    if not found:
        if given:
            raise UsageError("{}: no cell has the tag `parameters`, and arguments are given".format(where))
        return
    source, spec = notebook.cells[found[0]].source, notebook.metadata.get("kernelspec", {})
    language = spec.get("language") or notebook.metadata.get("language_info", {}).get("name") or "python"
    if language == "python":
        try:
            known = declared(source)
        except SyntaxError as error:
            raise UsageError("{}: its cell with the tag `parameters`: {}".format(where, error)) from None
        unknown = sorted(set(given) - set(known))
        if unknown:
            told = "{}: its cell with the tag `parameters` sets no {}; it sets {}"
            raise UsageError(told.format(where, ", ".join(unknown), ", ".join(known) or "nothing"))
    else:
        known = re.findall(r"\b{}\b".format(_PARTITION[0]), source)
    values = dict({_PARTITION[0]: partition} if partition and _PARTITION[0] in known else {}, **given)
    if values:
        cell = new_code_cell(_code(values, spec.get("name"), language, where), metadata={"tags": [_INJECTED]})
        notebook.cells.insert(found[0] + 1, cell)


def _code(values: Dict[str, Any], kernel: str, language: str, where: str) -> str:
    """Return the code that sets variables."""
    if language == "python":
        return "\n".join("{} = {!r}".format(name, value) for name, value in values.items())
    try:
        from papermill.translators import translate_parameters
    except ImportError:
        told = "{}: parameters of a notebook in {} are set by papermill, which this environment lacks"
        raise UsageError(told.format(where, language)) from None
    code = translate_parameters(kernel, language, values, "Parameters")  # type: str
    return code


def execute(notebook: Any, after_cell: Callable[[], None]) -> Optional[Failure]:
    """Execute all cells, what they print going to our own streams; return which one failed, if one did."""
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from traitlets.config import Config

    code = [at for at, cell in enumerate(notebook.cells) if is_code(cell)]
    done = []  # type: List[int]
    ended_by = []  # type: List[int]

    class Client(NotebookClient):  # type: ignore[misc, unused-ignore]
        def process_message(self, msg: Dict[str, Any], cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] == "stream":
                stream = sys.stderr if msg["content"]["name"] == "stderr" else sys.stdout
                stream.write(msg["content"]["text"])
                stream.flush()
            return super().process_message(msg, cell, cell_index)

    def executed(cell: Any, cell_index: int, execute_reply: Dict[str, Any]) -> None:
        after_cell()
        if is_code(cell) and execute_reply["content"]["status"] == "ok":
            done.append(cell_index)
            show_progress(len(done), len(code))

    def started(notebook: Any) -> None:
        # nbclient's own handlers shut the kernel down, and leave an error of nbclient's own.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            asyncio.get_event_loop().add_signal_handler(number, hand_on, number)

    def hand_on(number: int) -> None:
        ends = number in (signal.SIGTERM, signal.SIGINT)
        if ends:
            ended_by.append(number)
        os.kill(client.km.provisioner.pid, signal.SIGINT if ends else number)

    with tempfile.TemporaryDirectory(prefix="jupyter-") as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = folder
        # A file of ours: on a port of a shared node others could listen.
        config = Config({"KernelManager": {"transport": "ipc"}}) if len(folder) < _LONGEST else None
        client = Client(notebook, timeout=None, resources={"metadata": {"path": "."}}, config=config)
        client.on_notebook_start, client.on_cell_executed = started, executed
        try:
            client.execute()
        except NoSuchKernel as error:
            told = "the notebook's kernel is not in this environment: {}"
            raise UsageError(told.format(error.name)) from None
        except (CellExecutionError, DeadKernelError) as error:
            at = next(at for at in code if at not in done)
            told = _failure(notebook.cells[at], error)
            return Failure(code.index(at) + 1, len(code), told, ended_by[-1] if ended_by else None)
    return None


def is_code(cell: Any) -> bool:
    """Return whether a cell is one of the notebook's own that is executed."""
    return bool(cell.cell_type == "code" and cell.source.strip() and not tagged(cell, _INJECTED))


def _failure(cell: Any, error: Exception) -> str:
    """Return a cell's last error as its kernel tells it: the traceback shows the cell."""
    told = [output for output in cell.outputs if output.output_type == "error"]
    if told:
        return _COLOUR.sub("", "\n".join(told[-1].traceback))
    lines = cell.source.splitlines()
    shown = ["    " + line for line in lines[:_SHOWN]] + (["    ..."] if lines[_SHOWN:] else [])
    return "\n".join([*shown, "{}; a lack of memory does that".format(error)])


def write(path: str, data: bytes) -> None:
    """Put a file there whole, instead of an older one."""
    with open(path + ".part", "wb") as stream:
        stream.write(data)
    os.replace(path + ".part", path)


def write_pictures(notebook: Any, folder: str) -> None:
    """Write the pictures that cells show, PNG and SVG, by the number of the cell."""
    number = 0
    for cell in notebook.cells:
        if not is_code(cell):
            continue
        number += 1
        shown = [data for data in (output.get("data", {}) for output in cell.outputs) if data]
        for at, data in enumerate(shown):
            name = os.path.join(folder, "cell-{:02}{}".format(number, "-{}".format(at + 1) if at else ""))
            if "image/png" in data or "image/svg+xml" in data:
                os.makedirs(folder, exist_ok=True)
            if "image/png" in data:
                write(name + ".png", base64.b64decode(data["image/png"]))
            elif "image/svg+xml" in data:
                write(name + ".svg", "".join(data["image/svg+xml"]).encode("utf-8"))


def write_page(notebook: Any, path: str) -> None:
    """Write a notebook as a page, if nbconvert is there."""
    try:
        from nbconvert import HTMLExporter
    except ImportError:
        sys.stderr.write("no {}: nbconvert is not in this environment\n".format(path))
        return
    try:
        page, _ = HTMLExporter().from_notebook_node(notebook)
    except ValueError as error:  # its templates are not where it looks for them
        sys.stderr.write("no {}: {}\n".format(path, error))
        return
    write(path, page.encode("utf-8"))


def show_progress(done: int, total: int) -> None:
    """Tell how far it is in a line that whoever watches the job takes for a bar."""
    bar = "#" * (10 * done // total)
    sys.stderr.write("\n{:3}%|{:10}| {}/{} [cells]\n".format(100 * done // total, bar, done, total))
    sys.stderr.flush()


def main(words: Sequence[str]) -> int:
    """Run; return the exit code."""
    where, given = words[0], read_arguments(words[1:])
    try:
        import nbclient  # noqa: F401 - is it there?
        import nbformat
    except ImportError as error:
        told = "{}: this environment lacks {}: add nbclient and ipykernel to it"
        raise UsageError(told.format(where, error.name)) from None
    try:
        notebook = nbformat.read(where, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise UsageError("{} is no notebook: {}".format(where, error)) from None
    parameterize(notebook, given, os.environ.get(_PARTITION[1]), where)
    stem = where[: -len(".ipynb")]

    def save() -> None:
        write(stem + EXECUTED, nbformat.writes(notebook).encode("utf-8", "surrogatepass"))

    failure = execute(notebook, save)
    save()
    write_pictures(notebook, stem + PICTURES)
    if failure is None:
        write_page(notebook, stem + PAGE)
        return 0
    sys.stderr.write("{0}: cell {1.cell} of {1.cells} failed:\n{1.told}\n".format(where, failure))
    sys.stderr.write("The notebook as far as it came: {}\n".format(os.path.abspath(stem + EXECUTED)))
    sys.stderr.flush()
    if failure.signal is not None:  # whoever looks at how we ended is to see it
        signal.signal(failure.signal, signal.SIG_DFL)
        os.kill(os.getpid(), failure.signal)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        sys.exit(str(error))
