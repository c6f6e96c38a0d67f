"""The inputs of a step's jobs: brought to where these run, and told to their payloads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg

from dagster_slurm_components.data.provide import Provided, Provider
from dagster_slurm_components.data.store import InputStore
from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.errors import DagsterSlurmError, HostError, InputFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.inputs import INPUTS as INPUTS_FILE
from dagster_slurm_components.jobs.inputs import PATHS, TREES
from dagster_slurm_components.jobs.target import Target, satellite_of
from dagster_slurm_components.pipes.bring import brought
from dagster_slurm_components.pipes.context import Partition, StepContext
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.partition import template_names
from dagster_slurm_components.pipes.upstream import Made, Upstream
from dagster_slurm_components.spec.inputs import Input, assets_of, variable
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.templates import INPUTS, Values


@dataclass(frozen=True)
class Bound:
    """The inputs of one job, each by its name: one, or one for each partition of an asset."""

    inputs: Mapping[str, Provided | Mapping[str, Provided]] = field(default_factory=dict)

    @property
    def digest(self) -> Mapping[str, object]:
        """What they consist of, as JSON values."""
        return {name: _of(each, lambda one: one.hash) for name, each in self.inputs.items()}

    def fill(self, resolved: ResolvedScript, partition: Partition) -> ResolvedScript:
        """Return the script with those of its templates rendered that ask for inputs."""
        if not self.inputs:
            return resolved
        # A template that asks for the partition before the first one gets nothing, and not `{}`.
        paths = {name: _of(each, lambda one: one.path) or "" for name, each in self.inputs.items()}
        names, missing = template_names(partition)
        return resolved.at_partition({**names, INPUTS: Values(INPUTS, paths)}, missing)

    def add_to(self, activation: Activation, run_dir: str) -> Activation:
        """Return how a job is begun that needs them, and whose payload is told of them.

        Of several partitions it gets the name of a file with a line for each: ``DAGSTER_SLURM_INPUT_NAME_FILE``.
        """
        if not self.inputs:
            return activation
        env, files = dict(activation.env), dict(activation.files)
        for name, each in self.inputs.items():
            if isinstance(each, Provided):
                env[variable(name)] = each.path
                continue
            files[f"inputs/{name}.tsv"] = "".join(f"{key}\t{one.path}\n" for key, one in each.items())
            env[f"{variable(name)}_FILE"] = f"{run_dir}/inputs/{name}.tsv"
        every = list(self._each())
        trees = dict.fromkeys(one.tree.folder for one in every if one.tree)
        files[INPUTS_FILE] = json.dumps({name: _of(each, _told) for name, each in self.inputs.items()})
        files[PATHS] = "".join(f"{path}\0" for path in dict.fromkeys(one.path for one in every))
        files[TREES] = "".join(f"{folder}\n" for folder in trees)
        needs = dict.fromkeys(one.tree.mark if one.tree else one.path for one in every)
        return replace(activation, env=env, files=files, needs=(*activation.needs, *needs))

    def _each(self) -> Iterator[Provided]:
        for each in self.inputs.values():
            yield from (each,) if isinstance(each, Provided) else each.values()


def _of(given: Provided | Mapping[str, Provided], told: Callable[[Provided], object]) -> object:
    """Return what is told of an input, or that of each partition."""
    return told(given) if isinstance(given, Provided) else {key: told(one) for key, one in given.items()}


def _told(each: Provided) -> dict[str, str]:
    return {"source": each.source, "path": each.path, "hash": each.hash}


def _both_see(path: str, one: Satellite, other: Satellite) -> bool:
    """Return whether two hosts see one file system, as login nodes of one centre do: a path is the same for both."""
    sample = [FileRead(path, 0, 0)]
    seen = one.read(sample)
    return seen[0].exists and seen == other.read(sample)


class StepInputs:
    """Brings the inputs of a call's jobs to their host, those that several share once.

    Args:
        context: Dagster's context of the step.
        resolved: The script in its profile.
        place: Where its jobs run.
        guard: Is asked while bytes go; what it raises ends that.
        sure: Whether nothing is believed that was there lately.
    """

    def __init__(
        self,
        context: StepContext,
        resolved: ResolvedScript,
        place: Target,
        guard: Guard,
        *,
        sure: bool = False,
    ) -> None:
        profile, account = resolved.profile, resolved.script.resources.account
        store = InputStore(place.satellite, place.workdir, profile.profile.input_cache.most)
        self._provider = Provider(store, profile, account, context.log.info, guard.check, sure)
        self._guard = guard
        self._upstream = Upstream(context)
        self._bound: dict[str | None, Bound] = {}
        self._provided: dict[str, Provided] = {}

    def of(self, resolved: ResolvedScript, partition: Partition) -> Bound:
        """Return the inputs of the script's job for a partition, or a range; all of them are on the host then.

        Raises:
            InputFailedError: One is not there, or can't be brought.
            HostError: The host gives no answer, or refuses.
        """
        if partition.name not in self._bound:
            inputs = resolved.script.inputs
            self._bound[partition.name] = Bound(
                {name: self._one(name, each, resolved, partition) for name, each in inputs.items()}
            )
        return self._bound[partition.name]

    def look_up(self, jobs: Iterable[tuple[ResolvedScript, Partition]]) -> None:
        """Read what the assets have made that many jobs read, with few queries."""
        wanted: dict[dg.AssetKey, dict[str | None, None]] = {}
        for resolved, partition in jobs:
            for asset in assets_of(resolved.script.inputs):
                key = dg.AssetKey.from_escaped_user_string(asset)
                keys = self._upstream.keys(key, partition)
                wanted.setdefault(key, {}).update(dict.fromkeys([None] if keys is None else keys))
        for key, partitions in wanted.items():
            self._upstream.read(key, partitions)

    def _one(
        self, name: str, given: Input, resolved: ResolvedScript, partition: Partition
    ) -> Provided | Mapping[str, Provided]:
        try:
            if given.asset is not None:
                return self._of_asset(
                    name, given, dg.AssetKey.from_escaped_user_string(given.asset), partition
                )
            folder = resolved.base("inputs", name, "source")
            key = f"{folder} {given.model_dump_json()}"
            return self._once(key, lambda: self._provider.provide(name, given, folder))
        except HostError:
            raise
        except DagsterSlurmError as error:
            where = f"{resolved.position('inputs', name) or 'inputs'}: input `{name}`"
            where += f", {error.where}" if error.where else ""
            code = error.code if isinstance(error, InputFailedError) else "failed"
            raise InputFailedError(error.message, code=code, where=where, hint=error.hint) from error

    def _of_asset(
        self, name: str, given: Input, key: dg.AssetKey, partition: Partition
    ) -> Provided | Mapping[str, Provided]:
        keys = self._upstream.keys(key, partition)
        if keys is None:
            return self._of_made(name, self._upstream.made(key, None, given.output))
        self._upstream.read(key, keys)
        every = {each: self._of_made(name, self._upstream.made(key, each, given.output)) for each in keys}
        single = partition.span is not None and not partition.keys and len(every) == 1
        return next(iter(every.values())) if single else every

    def _of_made(self, name: str, made: Made) -> Provided:
        return self._once(f"{made}", lambda: self._bring(name, made))

    def _once(self, key: str, provide: Callable[[], Provided]) -> Provided:
        if key not in self._provided:
            self._provided[key] = provide()
        return self._provided[key]

    def _bring(self, name: str, made: Made) -> Provided:
        """Return what an asset has made where this profile's jobs can read it."""
        source, provider = f"asset:{made.asset}", self._provider
        if made.output is None:
            if "://" in made.path:
                return provider.provide(name, Input(source=made.path), Path())
            return provider.file(name, Path(made.path), source)
        own = provider.profile
        there = (
            own if made.output.profile == own.name else load_profile(made.output.profile, start=own.folder)
        )
        if there.profile.host == own.profile.host:
            return Provided(source, made.path, made.hash)
        is_here = made.output.pulled is not None and os.path.exists(made.output.pulled)
        if not is_here and _both_see(made.path, provider.store.satellite, satellite_of(there)):
            return Provided(source, made.path, made.hash)
        here = brought(made.output, own.folder, provider.tell, self._guard.pause)
        return provider.file(name, here, source)
