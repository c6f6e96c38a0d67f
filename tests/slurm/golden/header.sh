#!/bin/bash
#SBATCH --job-name="digits \"v2\" #1"
#SBATCH --comment="C:\\temp 50% done; $(touch /tmp/x) `id`"
#SBATCH --partition=gpu,debug
#SBATCH --nodes=2-4
#SBATCH --time=1-00:30:00
#SBATCH --gres=gpu:a100:2
#SBATCH --constraint="a100&ib|(v100*2)"
#SBATCH --output="/scratch/ünï/%%j/out.log"
#SBATCH --dependency="afterok:12:13?afterany:14"
#SBATCH --wckey="my-Het\Job"
#SBATCH --signal=B:USR1@60
#SBATCH --no-requeue
#SBATCH --exclusive
