"""What errors say, wherever the words came from."""

import pytest

from dagster_slurm_components.errors import DagsterSlurmError, HostRefusedError, printable

HOSTILE = [
    ("\x1b[2J\x1b[H\x1b]0;title\x07gone", "gone"),
    ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("a\rb\x08\x7f\x00c", "abc"),
    ("\x9b31mred", "31mred"),
    ("\x1bcreset", "reset"),
    ("tab\tand\nline ümlaut 漢", "tab\tand\nline ümlaut 漢"),
]


@pytest.mark.parametrize(("text", "clean"), HOSTILE)
def test_what_works_on_a_terminal_is_left_out_of_errors(text: str, clean: str) -> None:
    for error in (DagsterSlurmError(text), HostRefusedError(text, where="login")):
        assert error.message == clean
        assert "\x1b" not in str(error)


def test_colours_and_progress_bars_of_a_jobs_output_stay() -> None:
    text = "\x1b[1;31mred\x1b[0m 10 %\r20 %\n\x1b[2J\x1b]0;title\x07"
    assert printable(text, colours=True) == "\x1b[1;31mred\x1b[0m 10 %\r20 %\n"
