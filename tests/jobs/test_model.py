"""Identities, names and folders: stable, distinct, and harmless."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.model import JobIdentity, slug

texts = st.text(max_size=200)


@given(texts)
def test_a_slug_is_a_harmless_name(text: str) -> None:
    name = slug(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name)


@given(texts, texts)
def test_two_texts_never_share_a_slug(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


def test_readable_names_stay_as_they_are() -> None:
    assert slug("train_model-2.5") == "train_model-2.5"


@given(
    st.tuples(texts, texts, st.none() | texts, st.integers(0, 5)),
    st.tuples(texts, texts, st.none() | texts, st.integers(0, 5)),
)
def test_tokens_and_folders_tell_jobs_apart(
    one: tuple[str, str, str | None, int], other: tuple[str, str, str | None, int]
) -> None:
    first, second = JobIdentity(*one), JobIdentity(*other)
    assert (first.folder == second.folder) == (first == second)
    assert (first.token == second.token) == (first == second)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", first.job_name)


def test_the_run_directory_is_laid_out_as_documented() -> None:
    assert str(JobIdentity("run-1", "train", None, 0).folder) == "runs/run-1/train/0"
    assert str(JobIdentity("run-1", "train", "2026-01-01", 2).folder) == "runs/run-1/train/2026-01-01/2"
