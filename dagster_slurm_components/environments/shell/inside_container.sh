# The first thing that runs inside of a container: gives the variables that in_container.sh took along their names back,
# whatever the image has made of them, and becomes the command. For the image's own `sh`, whichever that is.
#
# Usage: inside_container.sh COMMAND [ARG...]

if [ -z "${DAGSTER_SLURM_OUTSIDE-}" ]; then
    echo "dagster-slurm: the job's variables are kept out of the container: leave --cleanenv or the like out of its options" >&2
    exit 96
fi
libraries=${LD_LIBRARY_PATH-} # the runtime's own: the driver of the GPUs
for name in $DAGSTER_SLURM_OUTSIDE; do # names, no values
    eval "export $name=\"\$DAGSTER_SLURM_OUTSIDE_$name\""
    unset "DAGSTER_SLURM_OUTSIDE_$name"
done
case " $DAGSTER_SLURM_OUTSIDE " in
*" LD_LIBRARY_PATH "*) LD_LIBRARY_PATH=$LD_LIBRARY_PATH${libraries:+:$libraries} ;;
esac
# What payloads import and source is the run directory's; the host's Python stays outside.
export PYTHONPATH="$DAGSTER_SLURM_LIB${PYTHONPATH:+:$PYTHONPATH}" PATH="$PATH:$DAGSTER_SLURM_LIB"
export DAGSTER_SLURM_PYTHON="$DAGSTER_SLURM_INSIDE_PYTHON"
unset name libraries DAGSTER_SLURM_OUTSIDE DAGSTER_SLURM_INSIDE_PYTHON
exec "$@"
