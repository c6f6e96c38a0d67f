"""The program `dg-slurm`."""
