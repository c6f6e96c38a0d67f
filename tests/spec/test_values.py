"""The formats of resources and other scalars."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.problems import problems_of
from dagster_slurm_components.spec.profile import Retention
from dagster_slurm_components.spec.resources import OWNED, Resources
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.slurm_values import memory_megabytes, time_seconds
from dagster_slurm_components.spec.source import SpelledInt, parse_documents


def messages(model, data) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [f"{p.message} | {p.hint}" for p in problems_of(caught.value, lambda path: None)]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("01:00:00", 3600),
        ("1-00", 86400),
        ("1-00:30", 88200),
        ("2-01:02:03", 176523),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_times(time, seconds):
    assert time_seconds(time) == seconds
    assert Resources(time=time).time == time


@pytest.mark.parametrize("time", ["", "1h", "1:2:3:4", "-5", "1-", "1 day", "12:00:00 ", "٣٠"])
def test_wrong_times(time):
    assert len(messages(Resources, {"time": time})) == 1
    with pytest.raises(ValueError, match="not a Slurm time"):
        time_seconds(time)


def test_unquoted_time_says_what_yaml_does():
    (document,) = parse_documents("time: 12:00:00", "a.yaml")
    (message,) = messages(Resources, document.data)
    assert "43200" in message
    assert "quotes" in message
    assert "quotes" in messages(Resources, {"time": 30})[0]


@pytest.mark.parametrize(
    ("memory", "megabytes"),
    [("8G", 8192), ("512", 512), ("512m", 512), ("1t", 1048576), ("2048K", 2), ("0", 0)],
)
def test_memory(memory, megabytes):
    assert memory_megabytes(memory) == megabytes
    assert Resources(mem=memory).mem == memory


def test_a_number_is_memory_in_mebibytes():
    assert Resources.model_validate({"mem": 4096}).sbatch_options() == (("mem", "4096"),)


@pytest.mark.parametrize("memory", ["8GB", "1.5G", "-1G", "G", "8 G", "8Gi"])
def test_wrong_memory(memory):
    assert "8G" in messages(Resources, {"mem": memory})[0]
    with pytest.raises(ValueError, match="not a Slurm memory"):
        memory_megabytes(memory)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("nodes", ["1", "2-4", "2-8:2", 3], ["zero", "0", "-1", "1-", "4--5"]),
        ("gpus", ["2", "a100:2", "a100:2,v100:1", 4], ["two", "a100:", ":2", "a100:2:3:4"]),
        ("gres", ["gpu", "gpu:2", "gpu:a100:2,shard:4", "none"], ["gpu: 2", "gpu:", "gpu::2", ",gpu"]),
        (
            "signal",
            ["USR1", "B:USR1@120", "SIGTERM@60", "10@30", "R:USR1"],
            ["usr1", "B:@120", "USR1@", "USR1@x"],
        ),
        ("partition", ["gpu", "gpu,cpu"], ["", " ", "a b", "a\nb", "a\0b"]),
        ("switches", ["1", "1@01:00:00", 2], ["one", "@1"]),
        ("constraint", ["a100&ib", "[rack1|rack2]", "(a|b)&c"], ["", "a\n#SBATCH --uid=0"]),
        ("exclusive", [True, False, "user"], ["all", 3]),
        ("wait_all_nodes", [0, 1], [2, True]),
        ("nice", [-5, 100, "10"], ["high", 1.5, True]),
        ("cpus_per_task", [1, "4", " 4 "], [0, -1, "four", 2.5, True, SpelledInt(8, "010")]),
        ("requeue", [True, False, "false"], ["maybe", 1, 0]),
        ("hint", ["nomultithread"], ["nomultitread"]),
    ],
)
def test_formats(field, good, bad):
    for value in good:
        assert getattr(Resources.model_validate({field: value}), field) is not None
    for value in bad:
        assert messages(Resources, {field: value}), value


@pytest.mark.parametrize("value", [True, 1.5, SpelledInt(8, "010")])
def test_text_that_yaml_did_not_read_as_text(value):
    assert "write it in quotes" in messages(Resources, {"account": value})[0]


def test_numeric_account_is_text():
    assert Resources.model_validate({"account": 4711}).account == "4711"


def test_exponents_and_octals_say_what_to_write():
    assert "write 1000" in messages(Resources, {"cpus_per_task": "1e3"})[0]
    assert "write 8" in messages(Resources, {"cpus_per_task": SpelledInt(8, "010")})[0]


@pytest.mark.parametrize("option", sorted(OWNED))
def test_owned_options_say_who_owns_them(option):
    (message,) = messages(Resources, {option: "x"})
    assert message.startswith(f"`{option}` can't be set here: ")


def test_mem_options_exclude_each_other():
    assert messages(Resources, {"mem": "1G", "mem_per_cpu": "1G"}) == [
        "`mem_per_cpu` and `mem` exclude each other | keep one of them"
    ]
    assert Resources.model_validate({"mem": "1G", "mem_per_cpu": None}).mem == "1G"


def test_sbatch_options_in_a_fixed_order():
    resources = Resources.model_validate(
        {"requeue": False, "time": "30", "exclusive": True, "partition": "gpu", "oversubscribe": False}
    )
    assert resources.sbatch_options() == (
        ("partition", "gpu"),
        ("time", "30"),
        ("exclusive", ""),
        ("no-requeue", ""),
    )
    assert Resources(requeue=True, exclusive="user").sbatch_options() == (
        ("exclusive", "user"),
        ("requeue", ""),
    )


def test_all_mistakes_at_once_and_one_each():
    data = {"nods": 1, "cpus_per_task": 0, "time": 5, "mem": "x", "job_name": "y", "hint": "z"}
    assert len(messages(Resources, data)) == len(data)


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"1A": "x"}, "environment variable"),
        ({"A B": "x"}, "environment variable"),
        ({"A": "a\0b"}, "NUL"),
        ({"DAGSTER_PIPES_CONTEXT": "x"}, "set by dagster-slurm-components"),
        ({"A": True}, "write it in quotes"),
        ({"A": 1.0}, "write it in quotes"),
        ({"A": None}, "got nothing"),
        ({True: "x"}, "key that is text"),
    ],
)
def test_environment_variables(env, word):
    assert word in messages(Script, {"payload": "a", "env": env})[0]


def test_environment_values_keep_newlines_quotes_and_numbers():
    env = {"A": "a\nb'\"$(x)", "B": 5, "C": ""}
    assert Script.model_validate({"payload": "a", "env": env}).env == {"A": "a\nb'\"$(x)", "B": "5", "C": ""}


def test_durations():
    assert duration_seconds("2w") == 14 * 86400
    assert duration_seconds("45s") == 45
    for wrong in (14, "14", "1.5h", "forever", "-1d", True):
        assert messages(Retention, {"success": wrong})
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds("x")


def test_numbers_that_are_asked_for():
    def numbers(**options):
        r = Resources.model_validate(options)
        return asked.nodes(r), asked.cpus_per_node(r), asked.gpus_per_node(r), asked.memory_per_node(r)

    assert numbers() == (None, 1, None, None)
    assert numbers(nodes="2-4", cpus_per_task=4, mem_per_cpu="1G") == ((2, 4), None, None, None)
    assert numbers(nodes=2, ntasks_per_node=4, cpus_per_task=2, mem_per_cpu="1G") == ((2, 2), 8, None, 8192)
    assert numbers(gpus="a100:2,v100:1", mem_per_gpu="10G") == (None, 1, 3, 30720)
    assert numbers(nodes=2, gpus=4) == ((2, 2), None, None, None)
    assert numbers(gpus_per_task=2, ntasks_per_node=2)[2] == 4
    assert numbers(gres="gpu:a100:4,shard:2")[2] == 4
    assert numbers(gres="gpu:1g.5gb:2,gpu:3g.20gb")[2] == 3
    assert numbers(gpus_per_node="1g.5gb:2,a100:1")[2] == 3
    assert numbers(gres="shard:2")[2] is None
    assert asked.seconds(Resources(time="10")) == 600
    assert asked.seconds(Resources()) is None
