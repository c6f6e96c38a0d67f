"""Three signals, three kinds of process, ten moments: ninety stories, ten at a time."""

from __future__ import annotations

import signal

import pytest
from lifecycle.dev import Dev
from lifecycle.stories import MOMENTS, SIGNALS, TARGETS, Story, check, play

import slurm_testcluster as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("target", TARGETS)
def test_at_ten_moments(dev: Dev, cluster: slurm.Cluster, target: str, number: signal.Signals) -> None:
    check(dev, cluster, play(dev, cluster, [Story(target, number, moment) for moment in MOMENTS]))
