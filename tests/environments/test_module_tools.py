"""Modules by the real Lmod, Environment Modules 5 and 4: loaded and checked by every name that they know one by."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dagster_slurm_components.environments.plan import plan_environment
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.spec.environments import ModulesEnvironment
from dagster_slurm_components.spec.hosts import LocalHost
from scripts.module_tools import CannotMakeError, ensure

LMOD = Path("/usr/share/lmod/lmod")
REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_INDEX") == "1"

GCC = "#%Module1.0\nconflict gcc\nsetenv GCC_VERSION {0}\nprepend-path PATH /soft/gcc-{0}/bin\n"
MPI = "#%Module1.0\nsetenv MPI_BUILT_BY {0}\n"
COMPILER = "#%Module1.0\nconflict compiler\nprepend-path MODULEPATH {folder}/tree/{0}\n"
TREE = {
    **{f"gcc/{version}": GCC.format(version) for version in ("12.3.0", "12.10.1", "13.1.0")},
    "gcc/.modulerc": "#%Module1.0\nmodule-version gcc/12.3.0 default\nmodule-version gcc/13.1.0 newest\n",
    ".modulerc": "#%Module1.0\nmodule-alias toolchain gcc/13.1.0\nmodule-alias in-lua julia/1.10.2\n",
    "julia/1.10.2.lua": 'setenv("JULIA_VERSION", "1.10.2")\n',
    "cuda/12.4": "#%Module1.0\nsetenv CUDA_HOME /soft/cuda\n",
    "base/2.1": "#%Module1.0\nsetenv BASE 2.1\n",
    "half/1": '#%Module1.0\nmodule load base/2.1\nif { [module-info mode load] } { puts stderr "no licence"; break }\n',
    "broken/1": "#%Module1.0\nsetenv HALF 1\nthis is no command\n",
    **{f"compiler/{name}": COMPILER.replace("{0}", name) for name in ("gnu", "intel")},
    **{f"tree/{name}/mpi/4.1": MPI.format(name) for name in ("gnu", "intel")},
}
"""A site's modules. Those of `tree` are visible when a compiler is loaded."""


@dataclass
class Tool:
    """One installation, and its folder of modules."""

    name: str
    home: Path
    folder: Path


@pytest.fixture(params=["lmod", "modules-5", "modules-4"])
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    home = LMOD
    if request.param == "lmod" and not (LMOD / "libexec" / "lmod").exists():
        pytest.skip("no Lmod on this machine (apt-get install lmod)")
    if request.param != "lmod":
        try:
            home = ensure(request.param)
        except CannotMakeError as error:
            if REQUIRED and request.param == "modules-5":
                raise
            pytest.skip(f"no Environment Modules here: {error}")
    folder = tmp_path / "modulefiles"
    for name, text in TREE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{folder}", str(folder)))
    return Tool(request.param, home, folder)


@pytest.fixture
def activate(tool: Tool, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Activate an environment of modules as ``job.sh`` does it; then print a variable and what is loaded."""

    def activate(
        *load: str,
        shows: str = "LOADEDMODULES",
        script: Callable[[str], str] = str,
        env: dict[str, str] | None = None,
        **fields: list[str],
    ) -> subprocess.CompletedProcess[str]:
        run = tmp_path / "run"
        activation = plan_environment(ModulesEnvironment(load=list(load), **fields), LocalHost())
        text = script(shipped("environments/shell/activate.sh"))
        for name, content in {**activation.files, "activate.sh": text}.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(content)
        (run / "activate.args").write_bytes(activation.arguments())
        variable = "LMOD_PKG" if tool.name == "lmod" else "MODULESHOME"
        found = {variable: str(tool.home), "MODULEPATH": str(tool.folder)} if env is None else env
        return subprocess.run(
            ["bash", "-c", f'. "$DAGSTER_SLURM_RUN_DIR/activate.sh"; umask; echo "${shows}"'],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "DAGSTER_SLURM_RUN_DIR": str(run),
                **found,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return activate


NO = None
NAMES: dict[str, tuple[str | None, str | None, str | None]] = {
    "gcc": ("gcc/12.3.0", "gcc/12.3.0", "gcc/12.3.0"),
    "gcc/12.3.0": ("gcc/12.3.0", "gcc/12.3.0", "gcc/12.3.0"),
    "gcc/12": ("gcc/12.3.0", "gcc/12.3.0", NO),
    "gcc/13": ("gcc/13.1.0", "gcc/13.1.0", NO),
    "gcc/1": (NO, NO, NO),
    "gcc/default": ("gcc/12.3.0", "gcc/12.3.0", "gcc/12.3.0"),
    "gcc/newest": ("gcc/13.1.0", "gcc/13.1.0", "gcc/13.1.0"),
    "toolchain": ("gcc/13.1.0", "gcc/13.1.0", "gcc/13.1.0"),
    "in-lua": ("julia/1.10.2", NO, NO),
    "julia/1": ("julia/1.10.2", NO, NO),
    "gcc@12": (NO, "gcc/12.3.0", NO),
    "cuda/default": ("cuda/12.4", "cuda/12.4", NO),
    "absent": (NO, NO, NO),
    "half": (NO, NO, NO),
    "broken": (NO, NO, NO),
    "mpi": (NO, NO, NO),
}
"""What Lmod, Environment Modules 5 and 4 load by a name; a module that they don't know or that fails stops the job."""


def outcome(done: subprocess.CompletedProcess[str]) -> str | None:
    """Return what is printed in the end, None if the job was stopped with a word that says why."""
    if done.returncode == 0:
        return done.stdout.splitlines()[-1]
    assert (done.returncode, done.stdout) == (96, ""), done.stderr
    assert "dagster-slurm: module" in done.stderr
    return None


def test_every_name_that_a_tool_knows_a_module_by(tool: Tool, activate):
    column = ["lmod", "modules-5", "modules-4"].index(tool.name)
    assert {name: outcome(activate(name)) for name in NAMES} == {
        name: row[column] for name, row in NAMES.items()
    }


def test_an_alias_of_what_is_loaded_already(activate):
    assert outcome(activate("gcc/13.1.0", "toolchain", "gcc/newest")) == "gcc/13.1.0"


@pytest.mark.parametrize("first", ["gcc/13.1.0", "toolchain", "gcc/newest"])
def test_a_module_that_conflicts_with_an_earlier_one(first: str, activate):
    done = activate(first, "gcc/12.3.0")
    assert outcome(done) is None
    # Environment Modules refuses the second, Lmod replaces the first.
    assert f"module {first} is not loaded" in done.stderr or "module load gcc/12.3.0 failed" in done.stderr


def test_modules_of_a_hierarchy(activate):
    assert outcome(activate("compiler/gnu", "mpi", shows="MPI_BUILT_BY")) == "gnu"
    assert outcome(activate("mpi", modules=["compiler/intel"], shows="MPI_BUILT_BY")) == "intel"
    # Lmod takes the compiler that comes later, and its MPI.
    assert outcome(activate("mpi", "compiler/intel", modules=["compiler/gnu"])) is None


def test_commands_before_and_after_the_modules(tool: Tool, activate):
    use = [f"module use {tool.folder}", "export WANTED=newest"]
    variable = "LMOD_PKG" if tool.name == "lmod" else "MODULESHOME"
    env = {variable: str(tool.home), "MODULEPATH": "/nonexistent"}
    setup = ['export SEEN="$WANTED $GCC_VERSION"']
    done = activate("gcc/newest", shows="SEEN", before_modules=use, setup=setup, env=env)
    assert outcome(done) == "newest 13.1.0", done.stderr
    done = activate("gcc/newest", before_modules=["test -e /nonexistent"], env=env)
    assert (done.returncode, done.stdout) == (96, "")
    assert "setup failed: test -e /nonexistent" in done.stderr


def test_a_tool_that_only_the_profile_of_login_shells_knows(tool: Tool, activate, tmp_path: Path):
    """Where a site has it elsewhere; the profile's own PATH comes first, and the umask stays."""
    (tmp_path / "profile").write_text(
        f"echo welcome\numask 077\nPATH=/site/bin\n. {tool.home}/init/bash\nexport MODULEPATH={tool.folder}\n"
    )

    def elsewhere(text: str) -> str:
        text = text.replace("/etc/profile ]", f"{tmp_path}/profile ]").replace(
            ". /etc/profile", f". {tmp_path}/profile"
        )
        return text.replace("/usr/share/", "/nonexistent/").replace("/etc/profile.d/", "/nonexistent/")

    done = activate("gcc/newest", shows="PATH", script=elsewhere, env={"PATH": "/own/bin:/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    mask, path = done.stdout.splitlines()
    own = subprocess.run(["bash", "-c", "umask"], capture_output=True, text=True, check=True).stdout
    assert mask == own.strip()
    folders = path.split(":")
    assert folders[0] == "/soft/gcc-13.1.0/bin"
    assert folders.index("/site/bin") < folders.index("/own/bin")
