"""Questions that are asked while the interpreter ends: calls that nobody waited for are cancelled or left then."""

import subprocess
import sys

PROGRAM = """
import threading, time
from types import SimpleNamespace
from dagster_slurm_components.jobs.questions import Questions

asked = []
scheduler = SimpleNamespace(
    has_accounting=False, metered=False, first_query=0.0, queue=lambda satellite, handles: asked.append(1),
    query_interval=lambda count, waiting: 0.0,
)
watch = SimpleNamespace(
    observation=SimpleNamespace(terminal=False, phase=None, wants_accounting=False), handle=None,
    closing_until=None, evidence=SimpleNamespace(accounting=None),
)
questions = Questions(scheduler, None, None)

def follow():
    threading.main_thread().join()
    time.sleep(0.2)  # what the interpreter does with its pools has no event of its own
    questions.ask([watch], 1.0)
    list(questions.answer([watch], 1.0))
    print("asked", len(asked))

threading.Thread(target=follow).start()
"""


def test_the_interpreter_s_end_breaks_no_watching() -> None:
    """`cannot schedule new futures after interpreter shutdown`: the job went on, though its caller had cancelled it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("asked 1\n", "")
