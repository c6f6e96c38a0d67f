"""One of two processes that submit jobs under a common limit.

Run as ``python places_driver.py WORKDIR LIMIT FIRST COUNT NAMES``. Prints the ids of its jobs, which wait for the file
``gate`` in WORKDIR.
"""

from __future__ import annotations

import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan


class OwnJobs(SlurmScheduler):
    """Slurm, whose queue holds these jobs alone: other tests use the same cluster as the same user."""

    def __init__(self, folder: str, limit: int, names: str) -> None:
        super().__init__(folder, Budget(f"{folder}/budget.json", 60, 60), limit)
        assert self.limit is not None
        assert self.limit.snapshot is not None
        query = self.limit.snapshot._replace(argv=(*self.limit.snapshot.argv, f"--name={names}"), max_age=1)
        self.limit = self.limit._replace(snapshot=query)


def main() -> None:
    """Submit and print the ids."""
    workdir, names = sys.argv[1], sys.argv[5]
    limit, first, count = (int(word) for word in sys.argv[2:5])
    scheduler = OwnJobs(f"{workdir}/queue", limit, names)
    satellite = Satellite(InProcessHost())
    place = Target(satellite, scheduler, Watcher(satellite, scheduler, 3000.0), workdir)
    gate = shlex.quote(f"{workdir}/gate")
    plan = LaunchPlan(script=f"until [ -e {gate} ]; do sleep 0.1; done; exec sleep 2\n", payload=("true",))
    options = (("time", "5"), ("mem", "10"))

    def one(number: int) -> str:
        spec = JobSpec(JobIdentity("limit", f"place{number}"), plan, Activation(), sbatch=options)
        return submit(place, spec, sleep=lambda seconds: time.sleep(min(seconds, 0.5))).job_id

    with ThreadPoolExecutor(count) as pool:
        print(" ".join(pool.map(one, range(first, first + count))))


if __name__ == "__main__":
    main()
