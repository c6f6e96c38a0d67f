"""What a watched job uses: the newest figures from few bytes, and the whole once it has ended."""

from __future__ import annotations

from typing import Any

from meter_fixture import GIB, head, sample, started
from watch_fixture import World, events, handle

from dagster_slurm_components.jobs.events import Ended, Part, Watch
from dagster_slurm_components.jobs.meter import FIRST, LONGEST, MOST_NODES, node_now
from dagster_slurm_components.jobs.usage import NodeUsage, parse_usage


def ended(world: World, watch: Watch) -> tuple[NodeUsage, ...]:
    world.files.append(f"{watch.handle.run_dir}/status", b"exit=0\n")
    world.run(20, every=1)
    (end,) = [event for event in events(watch) if isinstance(event, Ended)]
    return end.usage


def reads_of_usage(world: World, seconds: float) -> list[int]:
    """Return how many usage files each call reads that reads any."""
    found, read = [], world.files.read

    def counting(requests: Any, *, total: int) -> Any:
        found.append(sum("/usage/" in request.path for request in requests))
        assert found[-1] < len(requests), "a call that reads nothing else is one too many"
        return read(requests, total=total)

    world.files.read = counting  # type: ignore[method-assign]
    world.run(seconds, every=1)
    world.files.read = read  # type: ignore[method-assign]
    return [count for count in found if count]


def test_figures_are_those_between_two_looks(world: World) -> None:
    watch = started(world)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 10) + sample(10, 20) + sample(15, 25))
    world.run(FIRST + 2, every=1)
    (now,) = watch.meter.nodes
    assert (now.usage.node, now.usage.memory_limit, now.last.at, now.cpu) == ("n1", 64 * GIB, 1015, 1.5)
    world.files.append("/runs/1/usage/0.jsonl", sample(45, 145) + sample(75, 145))
    world.run(LONGEST, every=1)
    assert [(each.last.at, each.cpu) for each in watch.meter.nodes] == [(1075, 2.0)]


def test_usage_is_read_seldom_and_never_in_a_call_of_its_own(world: World) -> None:
    started(world)
    assert reads_of_usage(world, FIRST - 5) == []
    assert 8 <= len(reads_of_usage(world, 600)) <= 10
    reads_of_usage(world, 3000)
    assert 10 <= len(reads_of_usage(world, 3600)) <= 3600 / LONGEST


def test_all_nodes_are_read_up_to_a_sensible_number(world: World) -> None:
    watch = started(world, nodes=3)
    for node in range(3):
        world.files.append(f"/runs/1/usage/{node}.jsonl", head(node=f"n{node}") + sample(5, 1))
    assert reads_of_usage(world, FIRST + 2) == [3]
    assert [each.usage.node for each in watch.meter.nodes] == ["n0", "n1", "n2"]
    assert [each.node for each in ended(world, watch)] == ["n0", "n1", "n2"]
    started(world, number=2, nodes=500)
    assert reads_of_usage(world, FIRST + 2)[0] == MOST_NODES


def test_the_end_tells_all_that_is_known(world: World) -> None:
    watch = started(world)
    lines = head() + b"".join(sample(5 * each, each) for each in range(1, 7))
    world.files.append("/runs/1/usage/0.jsonl", lines)
    assert ended(world, watch) == (parse_usage(lines),)


def test_a_job_without_a_sampler_ends_as_before(world: World) -> None:
    assert ended(world, started(world, nodes=4)) == ()


def test_a_job_that_never_began_has_no_usage_to_read(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.step()
    world.watcher.cancelled(watch.handle)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5))
    world.queue.rows = {}
    world.run(1200, every=5)
    assert [event.usage for event in events(watch) if isinstance(event, Ended)] == [()]


def test_an_element_is_read_as_seldom_as_a_job_and_whole_at_its_end(world: World) -> None:
    watch = started(world, part=Part.ELEMENT)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 1) + sample(10, 2))
    assert reads_of_usage(world, FIRST - 5) == []
    assert 8 <= len(reads_of_usage(world, 600)) <= 10
    assert [each.usage.node for each in watch.meter.nodes] == ["n1"]
    world.files.append("/runs/1/status", b"exit=0\n")
    assert reads_of_usage(world, 20) == [1]
    assert [event.usage[0].node for event in events(watch) if isinstance(event, Ended)] == ["n1"]


def test_a_torn_line_is_read_again_whole(world: World) -> None:
    watch = started(world)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 1) + sample(10, 2)[:9])
    world.run(FIRST + 2, every=1)
    assert watch.meter.nodes[0].last.at == 1005
    world.files.append("/runs/1/usage/0.jsonl", sample(10, 2)[9:])
    world.run(LONGEST, every=1)
    assert watch.meter.nodes[0].last.at == 1010


def test_a_requeued_job_counts_from_its_new_start(world: World) -> None:
    watch = started(world)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 1) + sample(900, 3000))
    world.run(FIRST + 2, every=1)
    world.files.append(
        "/runs/1/usage/0.jsonl", sample(905, 3010) + head(5000.0) + sample(5, 2) + sample(10, 12)
    )
    world.run(LONGEST, every=1)
    assert [(each.last.at, each.cpu) for each in watch.meter.nodes] == [(5010, 2.0)]
    (usage,) = ended(world, watch)
    assert usage.starts == (1000, 5000)


def test_another_file_in_its_place_is_read_from_its_beginning(world: World) -> None:
    watch = started(world)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 1) + sample(900, 3000))
    world.run(FIRST + 2, every=1)
    world.files.content["/runs/1/usage/0.jsonl"] = head(7000.0) + sample(5, 1)
    world.run(2 * LONGEST, every=1)
    assert watch.meter.nodes[0].last.at == 7005


def test_of_a_long_file_the_newest_is_shown_and_at_its_end_the_whole(world: World) -> None:
    watch = started(world)
    lines = b"".join(sample(5 * each, each) for each in range(1, 14_001))
    world.files.append("/runs/1/usage/0.jsonl", head() + lines)
    world.run(FIRST + 4, every=1)
    assert watch.meter.nodes[0].last.at == 1000 + 5 * 14_000
    (usage,) = ended(world, watch)
    assert len(usage.samples) == 14_000


def test_lines_that_make_no_sense_do_no_harm(world: World) -> None:
    watch = started(world)
    world.files.append(
        "/runs/1/usage/0.jsonl", b"\xff" * 200_000 + b"\n[]\n" + head() + b"{}\n" + sample(5, 1)
    )
    world.run(FIRST + 20, every=1)
    assert [each.last.at for each in watch.meter.nodes] == [1005]
    assert len(ended(world, watch)[0].samples) == 1


def test_idle_is_what_neither_computes_reads_nor_writes() -> None:
    quiet = sample(5, 10.0) + sample(65, 10.3) + sample(125, 10.5)
    now = node_now(parse_usage(head() + quiet))
    assert now is not None
    assert now.idle == 120
    later = node_now(parse_usage(head() + sample(185, 10.9)), now)
    assert later is not None
    assert later.idle == 180
    for more in (
        sample(245, 11.6),  # 0.7 s in a minute are more than a hundredth of a core
        sample(245, 10.9, read=6),
        sample(245, 10.9, written=9),
        sample(245, None),
    ):
        busy = node_now(parse_usage(head() + more), later)
        assert busy is not None
        assert busy.idle == 0


def test_what_a_gpu_did_between_two_looks_counts() -> None:
    gpus = [["GPU-1", "H100", 80 * GIB]]
    lines = [sample(5 * each, 1.0, gpu=[[0.9 if each == 3 else 0.0, GIB, 90, 40, 5]]) for each in range(1, 7)]
    now = node_now(parse_usage(head(gpus=gpus) + b"".join(lines)))
    assert now is not None
    assert now.idle == 0
    assert now.gpus[0].busy == 0.15
    unknown = node_now(parse_usage(head(gpus=gpus) + sample(5, 1.0) + sample(10, 1.0)))
    assert unknown is not None
    assert unknown.idle == 0, "a GPU of which nothing is known may be at work"
