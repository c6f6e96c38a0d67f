"""Silent and idle payloads are told of once, with the numbers; silence alone is no proof. A running job's lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from meter_fixture import head, sample, started
from watch_fixture import World

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.idle import IdleNews, IdleTimer
from dagster_slurm_components.jobs.live import LiveNotice
from dagster_slurm_components.spec.retry import Idle

WARN = 600


def follow(
    world: World, watch: Watch, seconds: int, *, cpu: float | None = 0.001, talks: int = 0
) -> list[IdleNews]:
    """Let a job run that uses so much of a core, and talks every few seconds; return what is told of it."""
    timer, found = IdleTimer(Idle(warn="10m"), watch, clock=lambda: world.now), []
    begin = world.now
    if cpu is not None:
        world.files.append("/runs/1/usage/0.jsonl", head())
    while (at := world.now - begin) < seconds:
        world.step(5)
        if cpu is not None:
            world.files.append("/runs/1/usage/0.jsonl", sample(at, cpu * at))
        if talks and at % talks < 5:
            world.files.append("/runs/1/stdout.log", b".")
        if (news := timer.check()) is not None:
            found.append(news)
    return found


def test_a_silent_and_idle_job_is_told_once(world: World) -> None:
    (news,) = follow(world, started(world), 4 * WARN)
    assert news.hangs
    assert "Job 1 has written nothing for 00:1" in news.text
    assert (
        "computed, read and written nothing: memory 1 of 64 GiB (peak 2), CPU 0 of 4. It may hang."
        in news.text
    )


@pytest.mark.parametrize(("cpu", "talks"), [(0.5, 0), (0.001, 500), (0.5, 500)])
def test_one_that_works_or_talks_is_not(world: World, cpu: float, talks: int) -> None:
    assert follow(world, started(world), 4 * WARN, cpu=cpu, talks=talks) == []


def test_one_that_talks_again_and_falls_silent_again_is_told_again(world: World) -> None:
    assert [news.hangs for news in follow(world, started(world), 8 * WARN, talks=2 * WARN)] == [True] * 4


def test_without_samples_nobody_can_tell(world: World) -> None:
    (news,) = follow(world, started(world), 4 * WARN, cpu=None)
    assert not news.hangs
    assert "can't be told" in news.text


def test_without_samples_of_all_nodes_nobody_can_tell(world: World) -> None:
    assert [news.hangs for news in follow(world, started(world, nodes=2), 4 * WARN)] == [False]


def test_a_sampler_that_is_gone_proves_nothing(world: World) -> None:
    watch = started(world)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(0) + sample(700))
    assert [news.hangs for news in follow(world, watch, 4 * WARN, cpu=None, talks=WARN - 100)] == []
    world.files.append("/runs/1/stdout.log", b".")
    assert [news.hangs for news in follow(world, watch, 4 * WARN, cpu=None)] == [False]


def test_the_silence_of_a_lost_host_is_not_the_jobs(world: World) -> None:
    watch = started(world)
    world.files.error = HostUnreachableError("gone", where="login")
    assert follow(world, watch, 4 * WARN) == []


def test_without_the_key_nothing_is_told(world: World) -> None:
    watch = started(world)
    timer = IdleTimer(None, watch, clock=lambda: world.now)
    world.run(40_000, every=500)
    assert timer.check() is None


def test_what_a_job_uses_is_told_less_and_less_often(world: World) -> None:
    watch, told = started(world), []
    notice = LiveNotice(lambda text: told.append((round(world.now - begin), text)), clock=lambda: world.now)
    begin = world.now
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 19) + sample(10, 38))
    for _ in range(1600):
        world.step(5)
        notice.look(watch)
    assert told[0][1] == "Job 1: memory 1 of 64 GiB (peak 2), CPU 3.8 of 4"
    times = [at for at, _ in told]
    assert [55 <= times[0] <= 75, *(round((b - a) / 60) for a, b in pairwise(times))] == [
        True,
        *(5, 10, 30, 30, 30),
    ]


def test_a_job_that_is_over_within_a_minute_is_not_talked_about(world: World) -> None:
    watch, told = started(world), []
    notice = LiveNotice(told.append, clock=lambda: world.now)
    world.files.append("/runs/1/usage/0.jsonl", head() + sample(5, 19) + sample(10, 38))
    for _ in range(50):
        world.step(1)
        notice.look(watch)
    assert told == []
