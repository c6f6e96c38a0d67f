"""Whether what is known of a site is still what its cluster says."""

from collections.abc import Iterator, Mapping
from typing import Any

from dagster_slurm_components.doctor.findings import Finding, ok, skipped, warning
from dagster_slurm_components.doctor.probe import learn
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.rules import beyond
from dagster_slurm_components.spec.site import JobLimits, Partition, Site

_ADVICE = (
    "`dg-slurm check` passes jobs that Slurm refuses, or that wait for ever. Correct the site's facts: "
    "`dg-slurm sites probe` writes those of the cluster."
)


def check_site(satellite: Satellite, name: str, site: Site) -> Iterator[Finding]:
    """Compare the most that a site lets one job have with what its cluster lets it have.

    What the site allows less of may be the centre's wish, which Slurm knows nothing of.
    """
    told = learn(satellite)
    if not told["partitions"]:
        yield skipped("site", "the cluster tells of no partitions")
        return
    outdated = [
        *_outdated("partition", site.partitions, told["partitions"], Partition),
        # Without accounting nothing is told of them.
        *(_outdated("QOS", site.qos, told["qos"], JobLimits) if told["qos"] else ()),
    ]
    yield from (
        warning("site", f"the facts of `{name}` are not the cluster's: {each}", _ADVICE) for each in outdated
    )
    if not outdated:
        yield ok("site", f"the facts of `{name}` allow nothing that the cluster does not")


def _outdated(
    what: str, known: Mapping[str, JobLimits], told: Mapping[str, Any], model: type[JobLimits]
) -> Iterator[str]:
    for name, limits in known.items():
        if name not in told:
            yield f"there is no {what} `{name}`"
            continue
        yield from (
            why for _, why in beyond(_most(limits), model.model_validate(told[name]), f"{what} {name}")
        )


def _most(limits: JobLimits) -> Resources:
    """Return the largest job that limits allow."""
    return Resources(
        time=limits.max_time,
        nodes=limits.max_nodes,
        ntasks_per_node=1 if limits.max_cpus_per_node else None,
        cpus_per_task=limits.max_cpus_per_node,
        mem=limits.max_mem_per_node,
        gpus_per_node=str(limits.max_gpus_per_node) if limits.max_gpus_per_node else None,
    )
