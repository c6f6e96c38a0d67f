# The `bash` launcher: one process on the job's first node.
#
# Usage: launch_bash.sh -- PAYLOAD [ARG...]

[ "$1" = -- ] && shift
if [ "$1" = @python ]; then
    shift
    set -- "$DAGSTER_SLURM_PYTHON" "$@"
fi
exec "$@"
