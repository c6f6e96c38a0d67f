"""What every environment produces: steps for the one static ``activate.sh``."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ActivationStep:
    """One thing that is done before the payload boots: a function of ``activate.sh``, and its arguments."""

    kind: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Activation:
    """The steps that make an environment the payload's own; ``job.sh`` sources the static ``activate.sh`` for them.

    Attributes:
        steps: In order; a later step sees what an earlier one loaded.
        env: Extra environment variables; a value the user set wins.
        export: Variables of the host's login that the payload inherits with it.
        files: Extra files for the run directory, by relative path.
        wrapper: Start of a command line that runs the rest of it in the environment's container. Empty for most.
        python: The Python inside of that container; empty without one.
        by_step: Whether that container is one of an srun step, by a plugin of srun.
        needs: Paths on the host without which the job is not submitted: the environment's own mark that it is there.
    """

    steps: tuple[ActivationStep, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    export: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    python: str = ""
    by_step: bool = False
    needs: tuple[str, ...] = ()

    def arguments(self) -> bytes:
        """Return the content of ``activate.args``: of each step kind, number of arguments and these, ended by NUL."""
        words = [word for step in self.steps for word in (step.kind, str(len(step.args)), *step.args)]
        return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
