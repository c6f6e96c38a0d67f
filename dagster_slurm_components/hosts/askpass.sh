#!/bin/sh
# Run by ssh for each question of a login (SSH_ASKPASS): hands it to the process that logs in, and prints its answer.
exec "$DAGSTER_SLURM_PYTHON" -I -S -c '
import os, socket, sys
with socket.socket(socket.AF_UNIX) as dialer:
    dialer.connect(os.environ["DAGSTER_SLURM_ASKPASS"])
    dialer.sendall(os.fsencode("\0".join([os.environ["DAGSTER_SLURM_HOP"], *sys.argv[1:]])))
    dialer.shutdown(socket.SHUT_WR)
    sys.stdout.buffer.write(dialer.makefile("rb").read())
' "$1"
