import shlex
import shutil
import subprocess
import sys

import pytest
from subprocess_dialer import SubprocessDialer
from waiting import PATIENCE

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import bootstrap
from dagster_slurm_components.hosts.channel import Channel


class ShellDialer(SubprocessDialer):
    """Starts the satellite as a login shell that says ``prelude`` first would."""

    def __init__(self, prelude: str, command: str | None = None, timeout: float = PATIENCE) -> None:
        super().__init__(timeout=timeout)
        self.name = "h"
        self._script = f"{prelude}\n{command or bootstrap.shell_command(shlex.quote(sys.executable))}"

    def arguments(self):
        return ["/bin/sh", "-c", self._script]


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "tcsh", "csh", "fish", "ksh"])
def test_every_shell_passes_the_command_on_unchanged(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    script = tmp_path / "show"
    script.write_text(f'#!{sys.executable}\nimport sys\nsys.stdout.write("\\0".join(sys.argv[1:]))\n')
    script.chmod(0o755)
    done = subprocess.run(
        [shell, "-c", bootstrap.shell_command(str(script))], capture_output=True, check=True
    )
    assert done.stdout.decode().split("\0") == shlex.split(bootstrap.shell_command("python3"))[1:]


@pytest.mark.parametrize(
    "prelude",
    [
        "",
        "echo Welcome",
        "printf 'no newline'",
        "printf '\\000dagster-slurm satellite'",
        "printf '\\000\\000\\000'",
        "head -c 50000 /dev/zero | tr '\\000' x",
        "echo error >&2",
    ],
)
def test_banners_before_the_satellite_are_passed_over(prelude):
    opened = Channel(ShellDialer(prelude).dial(), "h")
    assert opened.call("hello", {}, b"", 10).result["pid"]
    opened.close()


@pytest.mark.parametrize(
    "prelude",
    [
        "yes yyyy",
        "echo yyyy; head -c 170000 /dev/zero | tr '\\000' x",
        "printf yyyy; head -c 170000 /dev/zero | tr '\\000' x",
        "{ echo yyyy; head -c 100000 /dev/zero | tr '\\000' x; } >&2; exit 1",
    ],
)
def test_a_login_that_prints_too_much_is_refused_with_its_first_words(prelude):
    with pytest.raises(HostRefusedError) as caught:
        ShellDialer(prelude).dial()
    assert "printed more than 64 KiB before the satellite could start, beginning with:\nyyyy" in str(
        caught.value
    )
    assert ".bashrc" in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_shell_that_never_comes_is_unreachable_and_its_words_are_quoted():
    with pytest.raises(HostUnreachableError, match=r"within 2\.5 s(.|\n)*Press any key") as caught:
        ShellDialer("echo 'Press any key'; exec sleep 300", timeout=2.5).dial()
    assert caught.value.where == "h"


def test_a_missing_python_is_named():
    with pytest.raises(bootstrap.NoPythonError, match="no-python-here"):
        ShellDialer("", bootstrap.shell_command("no-python-here")).dial()


def test_an_old_python_is_refused_with_its_version():
    # The version of an old Python can't be made here: the comparison is turned round instead.
    command = bootstrap.shell_command(shlex.quote(sys.executable)).replace("<(3,6)", ">(3,6)")
    version = ".".join(map(str, sys.version_info[:3]))
    with pytest.raises(bootstrap.NoPythonError, match=f"needs Python 3.6 or newer, this is {version}"):
        ShellDialer("", command).dial()


def test_an_account_that_runs_no_commands_is_refused_with_what_it_says():
    with pytest.raises(HostRefusedError, match="This account is for file transfer only") as caught:
        ShellDialer("", "echo This account is for file transfer only; exit 1").dial()
    assert "exit status 1" in str(caught.value)


@pytest.mark.parametrize(
    "words", ["bash: fork: retry: Resource temporarily unavailable", "System is going down. (pam_nologin)"]
)
def test_an_overloaded_or_restarting_host_is_unreachable(words):
    with pytest.raises(HostUnreachableError, match="now"):
        ShellDialer("", f"echo {shlex.quote(words)} >&2; exit 254").dial()


def test_a_lost_connection_while_starting_is_unreachable():
    class Silent:
        def read(self, size):
            return b""

        def write(self, data):
            raise OSError("Socket is closed")

        def close(self):
            pass

        def ending(self):
            return bootstrap.Ending(None, "")

    with pytest.raises(HostUnreachableError, match="lost while"):
        bootstrap.boot(Silent(), "h", 5)


def test_the_satellite_does_not_import_what_lies_about(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    opened = Channel(SubprocessDialer().dial(), "h")
    assert opened.call("ping", {}, b"", 10).result == {}
    opened.close()


def test_a_large_read_waits_for_all_and_keeps_nothing_back():
    """Else whoever reads little would miss the beginning of the next frame; at the end there is what there is."""
    pieces = "import sys\nfor _ in range(3): sys.stdout.write('x' * 300_000); sys.stdout.flush()"
    pipe = bootstrap.SubprocessPipe([sys.executable, "-c", pieces], "here")
    assert len(pipe.read(10)) == 10
    assert len(pipe.read(600_000)) == 600_000
    assert len(pipe.read(10)) == 10
    assert len(pipe.read(600_000)) == 900_000 - 600_020
    assert pipe.read(600_000) == b""
    pipe.close()
