"""Identities, names and folders: stable, distinct, and harmless."""

from __future__ import annotations

import re
from dataclasses import replace

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


identities = st.builds(JobIdentity, texts, texts, st.none() | texts, st.integers(0, 5), st.integers(0, 5))


@given(identities, identities)
def test_tokens_and_folders_tell_jobs_apart(first: JobIdentity, second: JobIdentity) -> None:
    assert (first.folder == second.folder) == (first == second)
    assert (first.token == second.token) == (first == second)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", first.job_name)


@given(identities)
def test_attempts_at_a_call_share_a_folder_and_nothing_else(identity: JobIdentity) -> None:
    again = identity.next()
    assert again == replace(identity, attempt=identity.attempt + 1)
    assert again.call_folder == identity.call_folder == again.folder.parent
    assert again.token != identity.token


@given(st.tuples(texts, texts, st.none() | texts), st.integers(1, 50))
def test_no_partition_s_folder_is_a_call_s(parts: tuple[str, str, str | None], call: int) -> None:
    run_id, step, partition = parts
    folder = JobIdentity(run_id, step, partition, call=call).call_folder
    assert folder.name == f"call={call}"
    assert "=" not in str(folder.parent)


def test_the_run_directory_is_laid_out_as_documented() -> None:
    assert str(JobIdentity("run-1", "train", None, 0).folder) == "runs/run-1/train/0"
    assert str(JobIdentity("run-1", "train", "2026-01-01", 2).folder) == "runs/run-1/train/2026-01-01/2"
    assert str(JobIdentity("run-1", "train", None, 2, call=3).folder) == "runs/run-1/train/call=3/2"
    assert (
        str(JobIdentity("run-1", "train", "2026-01-01", 2, call=3).folder)
        == "runs/run-1/train/2026-01-01/call=3/2"
    )
