# Runs a command in the environment's container: the payload or a rank, torchrun's agent, a process of Ray.
#
# Usage: in_container.sh [--step SRUN_OPTION... --] COMMAND [ARG...]
#
# container.args beside this file says in what: RUNTIME IMAGE GPU PYTHON BIND... -- OPTION..., each ended by NUL. The run
# directory, the working folder around it, TMPDIR, the node's copy (`stage`) and inputs that lie elsewhere are seen inside under
# their own paths, and the command starts in the folder that it would start in outside. SRUN_OPTIONs are for runtimes that are a
# plugin of srun: the step's own; without them the command is a step of one task, on this node, with all that the job has here.

environment=$DAGSTER_SLURM_RUN_DIR/environment
step=(--overlap --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist="${SLURMD_NODENAME-}" --cpu-bind=none --export=ALL
    --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}")
if [ "$1" = --step ]; then
    step=()
    while shift && [ "$1" != -- ]; do step+=("$1"); done
    shift
fi
words=()
while IFS= read -r -d '' word; do words+=("$word"); done <"$environment/container.args"
runtime=${words[0]} image=${words[1]} gpu=${words[2]} workdir=${DAGSTER_SLURM_RUN_DIR%/runs/*} at=4
binds=("$workdir:$workdir")
for folder in "${TMPDIR-}" "${SLURM_TMPDIR-}"; do
    # /tmp is shared by itself, and Charliecloud could bind to folders of the image only.
    if [ "$folder" = /tmp ] || [ "$runtime" = charliecloud ]; then continue; fi
    case " ${binds[*]} " in *" $folder:$folder "*) continue ;; esac
    if [ -d "$folder" ]; then binds+=("$folder:$folder"); fi
done
case ${DAGSTER_SLURM_STAGE:+$runtime:$DAGSTER_SLURM_STAGE} in
'' | charliecloud:/tmp/*) ;;
*) binds+=("$DAGSTER_SLURM_STAGE:$DAGSTER_SLURM_STAGE") ;;
esac
if [ -f "$DAGSTER_SLURM_RUN_DIR/inputs.paths" ] && [ "$runtime" != charliecloud ]; then
    while IFS= read -r -d '' input; do
        # What lies in the working folder is seen already; names with these no runtime's option can say.
        case $input in "$workdir"/* | *[:,]*) continue ;; esac
        binds+=("$input:$input:ro")
    done <"$DAGSTER_SLURM_RUN_DIR/inputs.paths"
fi
while [ "${words[at]}" != -- ]; do
    binds+=("${words[at]}")
    at=$((at + 1))
done
options=("${words[@]:at+1}")

# Images set variables too, and a runtime lets either side win, or none. The user's own, and what tells a process its
# place in the job, are taken along under other names; inside_container.sh gives them their own back. (What Apptainer
# offers for it, APPTAINERENV_NAME, it runs through a shell: `$(x)` in a value would be executed.)
# shellcheck disable=SC2016 # for the other bash to fill in
users=" $(env -i "$BASH" -c '. "$1" && compgen -e' job.env "$DAGSTER_SLURM_RUN_DIR/job.env" | tr '\n' ' ') $DAGSTER_SLURM_EXPORTED "
case $users in *" PYTHONPATH "*) ;; *) unset PYTHONPATH ;; esac # a module's packages are of the host's Python
names=
for name in $(compgen -e); do
    case $runtime:$name in
    *:PWD | *:OLDPWD | *:SHLVL | *:_ | pyxis:SLURM* | pyxis:PMI* | edf:SLURM* | edf:PMI*) continue ;; # a step has its own
    *:DAGSTER_* | *:SLURM* | *:PMI* | *:RAY_* | *:OMP_* | *_VISIBLE_DEVICES | *:GPU_DEVICE_ORDINAL) ;;
    *) case $users in *" $name "*) ;; *) continue ;; esac ;;
    esac
    names+="$name "
    export "DAGSTER_SLURM_OUTSIDE_$name=${!name}"
done
export DAGSTER_SLURM_OUTSIDE=$names DAGSTER_SLURM_INSIDE_PYTHON=${words[3]}

# One row for each runtime: how it is started, what it calls a bind, how it lets a vendor's GPUs be seen, what comes last.
last=("$image") bind='' nvidia='' amd=''
case $runtime in
apptainer | singularity) start=("$runtime" --quiet exec --pwd "$PWD") bind=--bind nvidia=--nv amd=--rocm ;;
charliecloud) # shares /tmp, which it would make of TMPDIR; wants to know who runs it
    unset TMPDIR
    export USER="${USER-$(id -un)}"
    start=(ch-run --cd="$PWD") bind=--bind last=("$image" --)
    if [ -r "$image/ch/environment" ]; then start+=(--set-env); fi
    ;;
pyxis)
    mounts=$(IFS=, && printf '%s' "${binds[*]}")
    start=(srun "${step[@]}" --container-workdir="$PWD" --container-mounts="$mounts" --container-image="$image") last=()
    ;;
edf) # a file for CSCS's container engine, which reads variables
    export DAGSTER_SLURM_WORKDIR=$workdir
    start=(srun "${step[@]}" --environment="$environment/container.toml") last=()
    ;;
esac
if [ -n "$bind" ]; then for folder in "${binds[@]}"; do start+=("$bind" "$folder"); done; fi
case $gpu in nvidia) gpu=$nvidia ;; amd) gpu=$amd ;; esac
exec "${start[@]}" ${gpu:+"$gpu"} "${options[@]}" "${last[@]}" sh "$environment/inside_container.sh" "$@"
