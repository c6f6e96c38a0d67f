"""What sshare says of budgets: rows as Slurm 22.05 writes them, and texts that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.slurm.shares import UNITS, Budget, budgets, in_hours, parse_sshare, sshare

ANSWER = (Path(__file__).parent / "data" / "sshare.txt").read_text()
SHARES = parse_sshare(ANSWER)
COUNTS = st.dictionaries(st.sampled_from(["cpu", "node", "gres/gpu", "mem"]), st.integers(0, 10**15))


def tres(counts: dict[str, int]) -> str:
    return ",".join(f"{name}={count}" for name, count in counts.items())


def test_the_rows() -> None:
    assert [(share.account, share.depth, share.user) for share in SHARES[5:9]] == [
        ("proj", 1, ""),
        ("sub", 2, ""),
        ("sub", 3, "ada"),
        ("other", 2, ""),
    ]
    assert SHARES[5].limits == {"cpu": 6000, "gres/gpu": 600}
    assert (SHARES[5].taken["cpu"], SHARES[5].taken["gres/gpu"]) == (1032, 90)


def test_the_least_on_the_way_up_binds() -> None:
    assert budgets(SHARES, "sub") == (
        Budget("account `sub`", "cpu", (1800 - 732) / 60, 30),  # less than what proj has
        Budget("account `proj`", "gres/gpu", 8.5, 10),
        Budget("ada in account `sub`", "node", 1, 10),
    )
    assert budgets(SHARES, "SUB") == budgets(SHARES, "sub"), "as sbatch takes it"
    assert [each.words for each in budgets(SHARES, "proj")] == [
        "82.8 of 100 core-hours are left to account `proj`",
        "8.5 of 10 GPU-hours are left to account `proj`",
    ]
    (cores, _) = budgets(SHARES, "other")
    assert cores.owner == "account `proj`", "its own limit is the larger one"


def test_a_budget_that_is_overdrawn_has_nothing_left() -> None:
    assert [each.words for each in budgets(SHARES, "tiny")] == [
        "0 of 0.0333 billing-hours are left to account `tiny`"
    ]


@pytest.mark.parametrize("account", ["lab", "nobody", "missing", "", "root"])
def test_where_nothing_is_limited_nothing_is_said(account: str) -> None:
    assert budgets(SHARES, account) == ()


def test_without_a_name_it_is_the_only_account_of_the_user() -> None:
    assert budgets(SHARES, None) == (), "ada has three"
    alone = [share for share in SHARES if not share.user or share.account == "sub"]
    assert budgets(alone, None) == budgets(SHARES, "sub")


def test_one_user_in_several_partitions_has_no_one_limit() -> None:
    row = next(line for line in ANSWER.splitlines() if line.startswith("   sub|ada|"))
    shares = parse_sshare(ANSWER.replace(row, f"{row}\n{row}"))
    assert {budget.resource for budget in budgets(shares, "sub")} == {"cpu", "gres/gpu"}


@pytest.mark.parametrize("counts", ["", "cpu=", "cpu=x", "cpu", "CPU=5", "cpu=-5"])
def test_what_can_not_be_read_is_not_known(counts: str) -> None:
    assert budgets(parse_sshare(f"a||cpu=5|{counts}|cpu=0"), "a") == ()
    assert budgets(parse_sshare(f"a||{counts}|cpu=1|cpu=0"), "a") == ()


def test_the_command_asks_for_all_columns_of_a_row() -> None:
    assert sshare()[-1].count(",") == ANSWER.splitlines()[0].count("|")


@pytest.mark.parametrize(
    ("hours", "words"), [(1234.4, "1,234"), (100, "100"), (12.54, "12.5"), (0.0333, "0.0333"), (0, "0")]
)
def test_hours_in_words(hours: float, words: str) -> None:
    assert in_hours(hours) == words


@given(st.lists(COUNTS, min_size=1, max_size=6), COUNTS, COUNTS)
def test_no_parent_leaves_more_than_it_has(
    limits: list[dict[str, int]], raw: dict[str, int], run: dict[str, int]
) -> None:
    """A chain of accounts, each below the one before."""
    rows = [
        f"{' ' * depth}a{depth}||{tres(each)}|{tres(raw)}|{tres(run)}" for depth, each in enumerate(limits)
    ]
    found = {each.resource: each for each in budgets(parse_sshare("\n".join(rows)), f"a{len(limits) - 1}")}
    for resource in UNITS:
        known = [
            each[resource] for each in limits if resource in each and resource in raw.keys() & run.keys()
        ]
        assert (resource in found) == bool(known)
        if known:
            left = max(0, min(known) - raw[resource] - run[resource])
            assert found[resource].left == pytest.approx(left / 60)


@given(st.text(), st.text())
def test_no_text_breaks_it(text: str, account: str) -> None:
    assert all(budget.left >= 0 for budget in budgets(parse_sshare(text), account))
    assert all(budget.left >= 0 for budget in budgets(parse_sshare(ANSWER + text), "sub"))
