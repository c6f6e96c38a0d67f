# The body of every job, whoever runs it (sbatch or a plain process): loads the environment, starts the launcher
# in its own process group, passes signals on, and keeps the job's own record in `status`.
#
# Usage: job.sh RUN_DIR [REQUEUES [CHECKPOINT [NEWS]]]
#
# REQUEUES is how often a job that wrote a checkpoint when it was asked to goes back into the queue; CHECKPOINT is the
# folder for it. NEWS is a file that gets the folder's name when the job begins and when it has ended: one file to look
# at for whoever follows a thousand elements of an array. Lines may get lost on NFS: it is a hint, and `status` is the word.
#
# All data of the user reaches this file as files in RUN_DIR: job.env, activate.args, launch.args, payload/.
# It is shipped as it is; nothing is ever written into it but the #SBATCH lines above. Runs on bash 3.2 (macOS).
#
# `status` holds KEY=VALUE lines, appended, in blocks that begin with `restart=`; `exit=` ends a block.

umask 077
run_dir=$1
requeues=${2:-0}
checkpoint=${3:-${run_dir%/*}/checkpoint} # beside the attempts: the next one goes on from it
news=${4-}
restart=${SLURM_RESTART_COUNT:-0}
cd -- "$run_dir" || exit 97

now() {
    # EPOCHREALTIME (bash 5) follows the locale's decimal sign.
    if [ -n "${EPOCHREALTIME-}" ]; then printf '%s' "${EPOCHREALTIME/,/.}"; else date +%s; fi
}

note() { # KEY VALUE [KEY VALUE ...]: one write, so that a reader never sees half a line
    local text=''
    while [ "$#" -gt 1 ]; do
        text+="$1=${2//$'\n'/ }"$'\n'
        shift 2
    done
    printf '%s' "$text" >>"$run_dir/status"
}

child=
witness=
asked= # for a checkpoint
stopped=
# shellcheck disable=SC2329 # invoked by the traps below
pass_on() { # SIGNAL: to the whole process group of the launcher
    case $1 in USR1 | USR2) asked=1 ;; *) stopped=1 ;; esac
    note signal "$1"
    # R ends itself on USR1: a payload that reads `status` for it says so by this file.
    if [ -z "$stopped" ] && [ -e "$run_dir/.reads_status" ]; then return; fi
    if [ "$1" = TERM ] && [ -n "$witness" ]; then
        sleep 0.2 # such a sweep takes a moment, and signals arrive in any order
        kill -0 "$witness" 2>/dev/null || return 0
    fi
    [ -n "$child" ] && kill -s "$1" -- "-$child" 2>/dev/null
}
for signal in TERM INT HUP USR1 USR2; do
    # shellcheck disable=SC2064 # the name is to be filled in now
    trap "pass_on $signal" "$signal"
done

# A requeued job starts over: what its earlier start reported is set aside, so that nothing is reported twice. The file is
# always there, and a new one: an NFS client that once saw none, or holds the old one, looks again only after a minute.
if [ "$restart" -gt 0 ]; then
    cp -f -- messages.jsonl "messages.jsonl.$((restart - 1))"
    { : >.messages.new && mv -f -- .messages.new messages.jsonl; } || rm -f -- messages.jsonl
fi

started=$(now)
# Not HOSTNAME, which sbatch may have brought along from the login node.
note restart "$restart" started "$started" pid "$$" host "$(uname -n)" \
    job_id "${SLURM_JOB_ID-}" array_job_id "${SLURM_ARRAY_JOB_ID-}" partition "${SLURM_JOB_PARTITION-}" \
    nodes "${SLURM_JOB_NODELIST-}" num_nodes "${SLURM_JOB_NUM_NODES:-1}" \
    cpus_per_node "${SLURM_JOB_CPUS_PER_NODE-}" mem_per_node_mb "${SLURM_MEM_PER_NODE-}" \
    mem_per_cpu_mb "${SLURM_MEM_PER_CPU-}" phase environment

if [ -n "$news" ]; then printf '%s\n' "${run_dir##*/}" >>"$news"; fi

# Inputs that no job uses for long are removed some day.
if [ -e inputs.trees ]; then
    while IFS= read -r tree; do : >"$tree/.used"; done <inputs.trees 2>/dev/null
fi

mkdir -p -- "$checkpoint"
if [ "$requeues" -gt 0 ]; then : >"$run_dir/.started"; fi

note_environment() { # what outputs are published with: the payload's umask, and the variables that are named in `to`
    local name
    {
        printf '%s\0' "${DAGSTER_SLURM_UMASK-077}"
        while IFS= read -r name; do
            if [ -n "${!name+set}" ]; then printf '%s=%s\0' "$name" "${!name}"; fi
        done <"$run_dir/outputs.names"
    } >"$run_dir/outputs.env"
}

run_payload() {
    export DAGSTER_SLURM_RUN_DIR=$run_dir DAGSTER_SLURM_RESTART_COUNT=$restart DAGSTER_SLURM_CHECKPOINT=$checkpoint
    # shellcheck source=/dev/null
    . "$run_dir/job.env" || exit 96
    # shellcheck source=/dev/null
    . "$run_dir/activate.sh" || exit 96
    # Once more: what the user wrote wins over what a module or an environment sets.
    # shellcheck source=/dev/null
    . "$run_dir/job.env" || exit 96
    unset SLURM_JWT # sbatch needed it
    if [ -e "$run_dir/outputs.json" ]; then note_environment; fi
    umask "${DAGSTER_SLURM_UMASK-077}"
    unset DAGSTER_SLURM_UMASK
    # What the environment brought, else what the profile's host names, else the system's.
    if [ -z "${DAGSTER_SLURM_PYTHON:=${DAGSTER_SLURM_HOST_PYTHON-}}" ]; then
        DAGSTER_SLURM_PYTHON=$(command -v python3 || command -v python || printf python3)
    fi
    export DAGSTER_SLURM_PYTHON
    unset DAGSTER_SLURM_HOST_PYTHON
    export DAGSTER_SLURM_LIB=$run_dir/lib
    export PYTHONPATH=$DAGSTER_SLURM_LIB${PYTHONPATH:+:$PYTHONPATH}
    export PATH=${PATH:+$PATH:}$DAGSTER_SLURM_LIB # so that `. pipes.sh` finds it; there is nothing to execute
    export PYTHONUNBUFFERED=${PYTHONUNBUFFERED-1}
    local words=() word work=$run_dir/payload
    while IFS= read -r -d '' word; do words+=("$word"); done <"$run_dir/launch.args"
    if [ -e "$run_dir/stage.sh" ]; then
        note phase staging
        # shellcheck source=/dev/null
        . "$run_dir/stage.sh" in # sets `work`
    fi
    cd -- "$work" || exit 96
    note phase payload launched "$(now)"
    exec bash "$run_dir/launch.sh" "${words[@]}"
}

set -m # background jobs get a process group of their own, which signals can be sent to
(
    trap - TERM INT HUP USR1 USR2
    [ -z "$stopped" ] || exit 143 # it came before there was a child
    run_payload
) </dev/null &
child=$!
# Slurm sends TERM to every process of a job, but to the batch script alone for `scancel --batch`. This one dies of the
# first kind, so that a payload is not told twice, in the middle of dealing with it.
if [ -n "${SLURM_JOB_ID-}" ]; then
    sleep 2147483647 >/dev/null 2>&1 &
    witness=$!
    disown "$witness" # its end is no news
fi
set +m
if [ -n "$stopped" ]; then # as the child was made: bash forgets what reaches a child before its first command
    sleep 0.2
    kill -s TERM -- "-$child" 2>/dev/null
fi

# The sampler writes down what the job uses, until its standard input ends: when this shell closes the other end, or is
# no more. Nothing that is started before this inherits an end of these pipes, and nothing that lasts is started after it.
# It is no child of this shell, which may then wait for all of them, see below.
sampling=
if [ -e sampler/sample.sh ]; then
    [ -e .sampler ] && rm -f -- .sampler
    if mkfifo -- .sampler 2>/dev/null && exec 7<>.sampler && exec 6<.sampler; then
        exec 8< <(
            sample() {
                trap '' TERM INT HUP USR1 USR2 # they are meant for the payload, which may go on for a while
                # Of a job that ends within a second nothing is written; bash 3.2 (macOS) can't tell which end it was.
                read -r -t 1 _
                [ $? -gt 128 ] || [ "${BASH_VERSINFO[0]}" -lt 4 ] || exit 0
                exec bash sampler/sample.sh "$run_dir/usage/0.jsonl" "$$" "$started"
            }
            sample <&6 2>/dev/null 6<&- 7>&- &
        )
        exec 6<&-
        sampling=1
    else
        printf '{"error":"no named pipe can be made in the run directory"}\n' >>usage/0.jsonl
    fi
    rm -f -- .sampler
fi

wait_for_child() { # sets `code`
    local answer
    # `wait` comes back early, with 128+n, when a signal arrives; of two at once bash may run the trap for one (5.2).
    while :; do
        wait "$child" 2>/dev/null
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    if [ -n "$witness" ]; then kill "$witness" 2>/dev/null; fi
    witness=
    # If it was a signal all the same, the end that came meanwhile is told now; 127 is said of one that was told already,
    # and -1 where a signal came as the child ended (5.2): but only once there are no other children.
    for _ in 1 2 3; do
        wait "$child" 2>/dev/null
        answer=$?
        if [ "$answer" -ge 0 ]; then break; fi
    done
    if [ "$answer" -ge 0 ] && [ "$answer" -ne 127 ]; then code=$answer; fi
    if [ "$code" -lt 0 ]; then code=143; fi
}

wait_for_child
kill -s TERM -- "-$child" 2>/dev/null # whatever the payload left behind in its group

# "USER SYSTEM" of all ended children; in a subshell `times` would speak of the subshell.
times >"$run_dir/.times"
{ read -r _ && read -r cpu; } <"$run_dir/.times"
rm -f -- "$run_dir/.times"
if [ -n "$sampling" ]; then
    exec 7>&-           # it writes a last sample, and ends;
    read -r -t 2 -u 8 _ # or hangs on a dead file system, which is nothing to wait for
    exec 8<&-
fi

# What the environment did outside of the run directory is undone while this job still may do something.
if [ -r environment/leave.sh ]; then bash environment/leave.sh "$run_dir"; fi

memory_peak() { # bytes, where Slurm gave the job a cgroup of its own and the kernel keeps the peak
    local entry path file
    [ -n "${SLURM_JOB_ID-}" ] || return 0
    while IFS= read -r entry; do
        case $entry in
        0::*"/job_$SLURM_JOB_ID"*) file=memory.peak path=/sys/fs/cgroup${entry#0::} ;;
        *:memory:*"/job_$SLURM_JOB_ID"*) file=memory.max_usage_in_bytes path=/sys/fs/cgroup/memory${entry#*:memory:} ;;
        *) continue ;;
        esac
        path=${path%%/job_"$SLURM_JOB_ID"*}/job_$SLURM_JOB_ID
        [ -r "$path/$file" ] && cat "$path/$file" && return 0
    done 2>/dev/null </proc/self/cgroup
}

# Slurm gives up a node that it does not hear of and starts the job anew elsewhere, while this start may go on: the
# record is the newer one's by now.
newest=$(grep '^restart=' "$run_dir/status" | tail -n 1)
if [ -e stage.sh ]; then
    for _ in 1 2; do
        (
            trap '' TERM INT HUP USR1 USR2 # the payload has heard them; what it made has until KILL
            export DAGSTER_SLURM_RUN_DIR=$run_dir DAGSTER_SLURM_RESTART_COUNT=$restart
            [ "$newest" = "restart=$restart" ] || exec bash stage.sh leave
            exec bash stage.sh back
        ) </dev/null
        staged=$?
        if [ "$staged" -lt 128 ]; then break; fi # else a signal came as the child was made
    done
    if [ "$staged" -ne 0 ]; then
        note staged failed
        if [ "$code" -eq 0 ]; then code=93; fi # this file's own, beside 94, 96 and 97
    fi
fi
[ "$newest" = "restart=$restart" ] || exit "$code"

# A payload that ends with 0 is done. Whoever sent TERM wants the job to end, and not to begin again.
if [ -n "$asked" ] && [ -z "$stopped" ] && [ "$code" -ne 0 ] && [ "$restart" -lt "$requeues" ] &&
    [ -n "$(find "$checkpoint" -type f -newer "$run_dir/.started" 2>/dev/null | head -n 1)" ]; then
    # No `exit=`: this start has ended, the job has not.
    note checkpointed "$code" requeue "$(now)"
    scontrol requeue "$SLURM_JOB_ID" && exit "$code"
    note requeue failed
fi

# What a payload that did its work was to make is looked for, with this node's view of the files.
if [ "$code" -eq 0 ] && [ -z "$stopped" ] && [ -e outputs.json ]; then
    set -m
    (
        trap - TERM INT HUP
        trap '' USR1 USR2 # they ask payloads for checkpoints
        [ -z "$stopped" ] || exit 143
        exec bash collector/collect.sh
    ) </dev/null &
    child=$!
    set +m
    if [ -n "$stopped" ]; then # as the child was made
        sleep 0.2
        kill -s TERM -- "-$child" 2>/dev/null
    fi
    wait_for_child
    case $code in
    0) note outputs made ;;
    95) note outputs unchecked && code=0 ;;
    *)
        if [ -z "$stopped" ]; then code=94; fi # this file's own, beside 96 and 97
        note outputs failed
        ;;
    esac
    rm -f -- outputs.env # like job.env, it may hold what is nobody's business
fi

note cpu "${cpu-}" memory_peak "$(memory_peak)" ended "$(now)" exit "$code"
if [ -n "$news" ]; then printf '%s\n' "${run_dir##*/}" >>"$news"; fi
exit "$code"
