# Runs a program beside the payload of a job that runs, on one of its nodes: in the payload's environment and folder.
#
# Usage: into.sh RUN_DIR RESTART [--outside] [PROGRAM [ARG...]]
#
# RESTART is how often Slurm had started the job before. Without a PROGRAM it is an interactive shell; @python stands for
# the payload's. Where the payload has a container they are in another one of it, but `--outside`.

umask 077
export DAGSTER_SLURM_RUN_DIR=$1 DAGSTER_SLURM_RESTART_COUNT=$2 DAGSTER_SLURM_CHECKPOINT=${1%/*}/checkpoint
shift 2
outside=
if [ "${1-}" = --outside ]; then
    outside=1
    shift
fi
if ! [ -r "$DAGSTER_SLURM_RUN_DIR/job.env" ]; then
    echo "dagster-slurm: there is no $DAGSTER_SLURM_RUN_DIR/job.env (any more) on $(uname -n): has the job ended?" >&2
    exit 96
fi

nodes=${SLURM_JOB_NUM_NODES-}
[ -z "$nodes" ] || SLURM_JOB_NUM_NODES=1 # what the job did on all of its nodes is done
exec 3>&1 >&2                            # what modules print is no output of the program
# As job.sh does it.
# shellcheck source=/dev/null
. "$DAGSTER_SLURM_RUN_DIR/job.env" || exit 96
# shellcheck source=/dev/null
. "$DAGSTER_SLURM_RUN_DIR/activate.sh" || exit 96
# shellcheck source=/dev/null
. "$DAGSTER_SLURM_RUN_DIR/job.env" || exit 96
exec >&3 3>&-
[ -z "$nodes" ] || export SLURM_JOB_NUM_NODES=$nodes
unset SLURM_JWT
export DAGSTER_SLURM_INTO=1 # what runs beside the payload, and is none of it
# Whoever tries the payload once more by hand must not speak in its name.
unset DAGSTER_PIPES_CONTEXT DAGSTER_PIPES_MESSAGES
umask "${DAGSTER_SLURM_UMASK-077}"
unset DAGSTER_SLURM_UMASK
if [ -z "${DAGSTER_SLURM_PYTHON:=${DAGSTER_SLURM_HOST_PYTHON-}}" ]; then
    DAGSTER_SLURM_PYTHON=$(command -v python3 || command -v python || printf python3)
fi
export DAGSTER_SLURM_PYTHON
unset DAGSTER_SLURM_HOST_PYTHON
export DAGSTER_SLURM_LIB=$DAGSTER_SLURM_RUN_DIR/lib
export PYTHONPATH=$DAGSTER_SLURM_LIB${PYTHONPATH:+:$PYTHONPATH}
export PATH=${PATH:+$PATH:}$DAGSTER_SLURM_LIB
work=$DAGSTER_SLURM_RUN_DIR/payload
# shellcheck source=/dev/null
if [ -e "$DAGSTER_SLURM_RUN_DIR/stage.sh" ]; then . "$DAGSTER_SLURM_RUN_DIR/stage.sh" into; fi # sets `work`
cd -- "$work" || exit 96

inside=()
if [ -z "$outside" ] && [ -r "$DAGSTER_SLURM_RUN_DIR/environment/container.args" ]; then
    inside=(bash "$DAGSTER_SLURM_RUN_DIR/environment/in_container.sh")
fi
if [ "$#" -eq 0 ]; then
    # Not the user's own startup files: they would put other software before the payload's.
    export PS1="[${SLURM_JOB_ID:+job $SLURM_JOB_ID }${SLURMD_NODENAME:-\\h} \\W]\\\$ "
    # shellcheck disable=SC2016 # for the other shell to look
    set -- sh -c 'if command -v bash >/dev/null; then exec bash --noprofile --norc -i; fi; exec sh -i'
elif [ "$1" = @python ] && [ "${#inside[@]}" -gt 0 ]; then
    shift
    # shellcheck disable=SC2016 # the container's
    set -- sh -c 'exec "$DAGSTER_SLURM_PYTHON" "$@"' sh "$@"
elif [ "$1" = @python ]; then
    shift
    set -- "$DAGSTER_SLURM_PYTHON" "$@"
fi
exec "${inside[@]}" "$@"
