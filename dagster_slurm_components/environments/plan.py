"""Turns an environment's spec into the steps that activate it."""

from __future__ import annotations

import sys

from ..errors import DagsterSlurmError
from ..spec.environments import CurrentEnvironment, EnvironmentSpec, ModulesEnvironment, PathEnvironment
from ..spec.hosts import HostSpec, LocalHost
from .base import Activation, ActivationStep


def plan_environment(environment: EnvironmentSpec, host: HostSpec) -> Activation:
    """Return how an environment is activated on a host.

    Modules come first, then the site's own shell files, then the environment itself.

    Raises:
        DagsterSlurmError: An environment that this host can't have.
    """
    steps = []
    if environment.modules:
        steps.append(ActivationStep("modules", tuple(environment.modules)))
    if isinstance(environment, ModulesEnvironment):
        steps.append(ActivationStep("modules", tuple(environment.load)))
    steps += [ActivationStep("setup", (path,)) for path in environment.setup]
    steps += _own_steps(environment, host)
    return Activation(steps=tuple(steps))


def _own_steps(environment: EnvironmentSpec, host: HostSpec) -> list[ActivationStep]:
    if isinstance(environment, PathEnvironment):
        return [ActivationStep("prefix", (environment.path,))]
    if isinstance(environment, ModulesEnvironment):
        return []
    if isinstance(environment, CurrentEnvironment):
        return [ActivationStep("python", (sys.executable,))] if isinstance(host, LocalHost) else []
    raise DagsterSlurmError(
        f"environments of type `{environment.type}` can't be activated",
        hint="Use one of `current`, `path`, `modules`.",
    )
