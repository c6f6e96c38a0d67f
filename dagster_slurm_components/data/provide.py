"""The way of an input to the host of its job: sent or fetched where it is lacking, and named by its content."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dagster_slurm_components.data.host.download import shown as shown_url
from dagster_slurm_components.data.host.program import answer
from dagster_slurm_components.data.local import Content, read_content
from dagster_slurm_components.data.remote import fetch_here, last_part
from dagster_slurm_components.data.store import InputStore, Tree
from dagster_slurm_components.environments.machine import (
    cache_folder,
    digest_of,
    only_one,
    recall,
    remember,
    use,
)
from dagster_slurm_components.errors import InputFailedError
from dagster_slurm_components.jobs.outputs import shown
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.inputs import FetchOn, Input
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.units import format_size

_BELIEVED = 3600.0
"""Seconds for which an input that was there is believed to be there still; a submission looks for it anyway."""
_FRESH = 60.0
"""Seconds for which what a URL gave is not asked for again."""
_TELL_EVERY = 10.0
_WEB = ("http", "https")


@dataclass(frozen=True)
class Provided:
    """An input that is where its job can read it.

    Attributes:
        source: What a user calls it.
        path: Where it is on the host.
        hash: Of what is in it; of another content it is another. Nothing where nobody knows.
        tree: Where the store of inputs has it; an output of another job is read where it is.
    """

    source: str
    path: str
    hash: str
    tree: Tree | None = None


@dataclass(frozen=True)
class Provider:
    """Brings inputs to a profile's host.

    Attributes:
        tell: Receives a sentence when something is sent or fetched.
        check: Is called while bytes go; what it raises ends that, and what has come stays.
        sure: Whether nothing is believed that was there lately.
    """

    store: InputStore
    profile: LoadedProfile
    account: str | None
    tell: Callable[[str], None]
    check: Callable[[], None]
    sure: bool = False

    @property
    def _where(self) -> str:
        return self.store.satellite.host.name

    def provide(self, name: str, given: Input, folder: Path) -> Provided:
        """Return an input that is no asset; relative paths start at ``folder``.

        Raises:
            InputFailedError: It is not there, or there is no room for it.
            HostError: The host gives no answer, or refuses.
        """
        if given.file is not None:
            path = folder / Path(given.file).expanduser()
            return self.file(name, path, given.source, unpack=given.unpack)
        where = given.fetch_on and given.fetch_on.where
        if where == "here" or (given.fetch_on is None and _scheme(given) not in _WEB):
            return self._fetched_here(name, given)
        if _scheme(given) not in _WEB:
            text = f"{_scheme(given)} can't be fetched on the host, where there is Python alone"
            raise InputFailedError(text, where=name, hint="Write `fetch_on: here`.")
        return self._fetched_there(name, given)

    def file(self, name: str, path: Path, source: str, *, unpack: bool = False) -> Provided:
        """Return a file or folder of this machine, sent as far as the host has not the same content."""
        content = read_content(path, source)
        if isinstance(self.profile.profile.host, LocalHost) and not unpack:
            return Provided(source, os.path.abspath(path), content.key)
        if unpack and content.is_folder:
            text = f"{shown(str(path))} is a folder, and only a file can be unpacked"
            raise InputFailedError(text, where=source, hint="Leave `unpack` out.")
        memo = self._memo("file", content.key, unpack)
        if known := self._believed(memo, _BELIEVED):
            return Provided(source, known.path, known.key, known)
        with only_one(f"input-{memo[:32]}"):
            tree = self._sent(name, content)
            if unpack:
                order = {
                    "name": content.name,
                    "source": source,
                    "sha256": content.files[0].sha256,
                    "most": None,
                }
                unpacked = self.store.call("unpack", order)
                tree = self.store.tree(unpacked["key"], unpacked["name"])
            return self._keep(memo, source, tree)

    def _sent(self, name: str, content: Content) -> Tree:
        tree = self.store.tree(content.key, content.name)
        if self.store.ready(tree) is not None:
            return tree
        told, done, total = time.monotonic(), 0, 0

        def tell(what: str, size: int) -> None:
            nonlocal total
            total = size
            self.tell(f"Input `{name}`: {what}, {format_size(size)}, are sent to {self._where}.")

        def got(size: int) -> None:
            nonlocal told, done
            self.check()
            done += size
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                self.tell(f"Input `{name}`: {format_size(done)} of {format_size(total)} are there.")

        return self.store.send(content, got=got, tell=tell)

    def _fetched_there(self, name: str, given: Input) -> Provided:
        order = self._order(given)
        memo = self._memo("url", order)
        if known := self._believed(memo, _BELIEVED if given.sha256 else _FRESH):
            return Provided(order["source"], known.path, known.key, known)
        with only_one(f"input-{memo[:32]}"):
            tree, fetched = self.store.fetch(order, self._launcher(given.fetch_on))
        if fetched["state"] == "fetched":
            size = f"{fetched['count']} files, {format_size(fetched['bytes'])}"
            self.tell(f"Input `{name}` was fetched on {self._where}: {size}.")
        return self._keep(memo, order["source"], tree)

    def _launcher(self, fetch_on: FetchOn | None) -> list[str]:
        """Return what starts the fetching in a job of its own, where that is asked for and there is Slurm."""
        if fetch_on is None or fetch_on.partition is None or self.profile.profile.scheduler != "slurm":
            return []
        asked = {"account": self.account, **fetch_on.explicit()}
        options = [f"--{option}={value}" for option, value in asked.items() if value is not None]
        return ["srun", "--quiet", "--ntasks=1", "--job-name=dg-slurm-data", *options]

    def _fetched_here(self, name: str, given: Input) -> Provided:
        """Return what this machine fetched, into its own cache, and sent."""
        order = self._order(given)
        with only_one(f"input-{digest_of(order)[:32]}"):
            if _scheme(given) in _WEB:
                place = cache_folder("inputs")
                found = answer("fetch", {"workdir": str(place), "bound": None, **order})
                if not found["ok"]:
                    raise InputFailedError(
                        found["message"], code=found["code"], detail=found["detail"], where=name
                    )
                tree = found["result"]
                use(place / "data" / "trees" / tree["key"])
                path, unpack = place / "data" / "trees" / tree["key"] / tree["name"], False
            else:
                path, unpack = fetch_here(given.source, given.most, self.tell), given.unpack
        return self.file(name, path, order["source"], unpack=unpack)

    def _order(self, given: Input) -> dict[str, Any]:
        """Return what whoever fetches a URL is told."""
        url, limits = given.source, self.profile.profile.input_cache
        return {
            "url": url,
            "source": shown_url(url),
            "name": last_part(unquote(urlsplit(url).path)),
            "sha256": given.sha256,
            "unpack": given.unpack,
            "most": given.most,
            "rate": limits.bytes_per_second,
            "fresh": _FRESH,
            "at_once": limits.fetches,
        }

    def _memo(self, *what: object) -> str:
        return digest_of(self._where, self.store.workdir, *what)

    def _believed(self, memo: str, age: float) -> Tree | None:
        known = None if self.sure else recall("trees", memo, age)
        return Tree(**known) if known else None

    def _keep(self, memo: str, source: str, tree: Tree) -> Provided:
        remember("trees", memo, vars(tree))
        return Provided(source, tree.path, tree.key, tree)


def _scheme(given: Input) -> str:
    return urlsplit(given.source).scheme.lower()
