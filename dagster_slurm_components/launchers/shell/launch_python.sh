# The launchers whose work is more than a shell should do: hands over to a program in the run directory's launch/.
#
# Usage: launch_python.sh PROGRAM [OPTION...] -- PAYLOAD [ARG...]
#
# Without site-packages and the user's own Python settings: these programs need the standard library only.

program=$1
shift
export DAGSTER_SLURM_LC_CTYPE=${LC_CTYPE-} # Python sets it where there is no locale at all (PEP 538)
exec "$DAGSTER_SLURM_PYTHON" -E -s -S "$DAGSTER_SLURM_RUN_DIR/launch/$program" "$@"
