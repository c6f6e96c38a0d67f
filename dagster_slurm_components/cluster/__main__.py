"""``python -m dagster_slurm_components.cluster up|down|status``, the same as ``dg-slurm cluster``."""

from dagster_slurm_components.cli.cluster import cluster

if __name__ == "__main__":
    cluster(prog_name="python -m dagster_slurm_components.cluster")
