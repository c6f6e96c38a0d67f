"""What jobs write, and where they can't write."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from satellite_fixture import FakeSlurm, bundle

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.events import STDOUT, Output, OutputSkipped
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.output import Stream
from dagster_slurm_components.jobs.schedulers import ProcessScheduler
from dagster_slurm_components.jobs.watch import Watcher


@given(
    st.lists(
        st.sampled_from([b"\xf0\x9f\x8c\x8d", b"\xff\xfe", b"\0", b" 42%\r", b"\n", b"plain", b"\xe2\x82"])
    ),
    st.lists(st.integers(min_value=1, max_value=7), min_size=1),
)
def test_f32_output_may_hold_any_bytes_and_be_cut_anywhere(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    shown = io.StringIO()
    stream = Stream(lambda: shown)
    position, turn = 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        stream.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    stream.finish()
    assert shown.getvalue() == data.decode("utf-8", "replace")
    assert stream.position == len(data)


def test_f34_a_gigabyte_of_output_does_not_grow_the_memory(tmp_path: Path, local: Satellite) -> None:
    handle = JobHandle("1:x", str(tmp_path))
    (tmp_path / "status").write_text("restart=0\nstarted=1\nhost=n1\n")
    output = tmp_path / "stdout.log"
    output.touch()
    scheduler = ProcessScheduler()
    now = [0.0]
    watcher = Watcher(
        local,
        scheduler,
        operations_per_second=1e6,
        clock=lambda: now[0],
        threaded=False,
    )
    watch = watcher.watch(handle)
    told = 0
    tracemalloc.start()
    for second in range(1, 61):
        with output.open("r+b") as file:
            file.truncate(second * 17_000_000)
        for _ in range(2):
            now[0] += 0.5
            watcher.step()
        while (event := watch.next(timeout=0.001)) is not None:
            if isinstance(event, Output) and event.name == STDOUT:
                told += len(event.data)
            elif isinstance(event, OutputSkipped):
                told += event.size
    watch.close()
    most = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert told > 900_000_000, "what is not shown is told as left out"
    assert most < 50, f"{most:.0f} MB at a time"


def test_f30_a_working_folder_that_can_not_be_written_is_told_before_anything_is_submitted(
    local: Satellite, slurm: FakeSlurm, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(SatelliteError, match="taken"):
        local.submit(slurm.request(taken), bundle({"job.sh": "x"}))
    assert slurm.jobs() == []
