# Runs a payload inside a container.
#
# Usage: in_container.sh apptainer|singularity|pyxis IMAGE [OPTION...] -- PAYLOAD [ARG...]
#
# The run directory is visible inside under its own path, and the payload starts in the folder that it would start in
# outside. Environment variables go along, as these runtimes have it by default.

runtime=$1 image=$2
shift 2
options=()
while [ "$1" != -- ]; do
    options+=("$1")
    shift
done
shift
case $runtime in
pyxis)
    # One task of its own: pyxis is a plugin of srun, and the payload is not an srun step by itself.
    exec srun --ntasks=1 --container-image="$image" --container-workdir="$PWD" \
        --container-mounts="$DAGSTER_SLURM_RUN_DIR:$DAGSTER_SLURM_RUN_DIR" "${options[@]}" "$@"
    ;;
*) exec "$runtime" exec --bind "$DAGSTER_SLURM_RUN_DIR" --pwd "$PWD" "${options[@]}" "$image" "$@" ;;
esac
