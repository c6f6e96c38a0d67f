# The body of a job array: makes the run directories of its elements whole and runs `job.sh` in each.
#
# Usage: array.sh ARRAY_DIR REQUEUES
#        array.sh ARRAY_DIR REQUEUES MOST [ELEMENT...]
#
# Under Slurm this is one task, whose elements stand in `tasks`, a line that begins with SLURM_ARRAY_TASK_ID. A plain
# process runs all tasks, MOST at a time (as many as there are cores if it is 0): each is this file again, with the
# numbers of its elements. `job.sh` says what REQUEUES is. Runs on bash 3.2 (macOS).

umask 077
array=$1
requeues=$2
cd -- "$array" || exit 97

child=
stopped=
# shellcheck disable=SC2329 # invoked by the traps below
pass_on() { # SIGNAL
    case $1 in USR1 | USR2) ;; *) stopped=1 ;; esac
    [ -n "$child" ] && kill -s "$1" -- "$child" 2>/dev/null
}
for signal in TERM INT HUP USR1 USR2; do
    # shellcheck disable=SC2064 # the name is to be filled in now
    trap "pass_on $signal" "$signal"
done

wait_for_child() { # sets `code`; `job.sh` says why so
    local answer
    while :; do
        wait "${child#-}" 2>/dev/null
        code=$?
        kill -0 "${child#-}" 2>/dev/null || break
    done
    wait "${child#-}" 2>/dev/null
    answer=$?
    if [ "$answer" -ge 0 ] && [ "$answer" -ne 127 ]; then code=$answer; fi
}

all_tasks() { # MOST
    local cores most=$1
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || cores=1
    if [ "$most" -eq 0 ] || [ "$most" -gt "$cores" ]; then most=$cores; fi
    printf 'restart=0\nstarted=%s\nhost=%s\n' "$(date +%s)" "$(uname -n)" >>status
    set -m # a process group of its own, which signals can be sent to
    xargs -L 1 -P "$most" bash "$array/job.sh" "$array" "$requeues" "$most" <tasks &
    child=-$!
    set +m
    wait_for_child
    # xargs dies of a signal at once, and what it had started ends in its own time.
    while kill -0 -- "$child" 2>/dev/null; do sleep 0.1; done
    [ -e .failed ] && code=1
    printf 'ended=%s\nexit=%s\n' "$(date +%s)" "$code" >>status
    exit "$code"
}

prepare() { # what all elements share is linked; a payload may write where it lies, so that each has its own
    [ -d "$dir/payload" ] && return
    rm -rf -- "$dir/.payload"
    ln -sfn -- "$array"/common/* "$dir/" && cp -R -- "$array/payload" "$dir/.payload" &&
        mv -- "$dir/.payload" "$dir/payload" || exit 97
}

inherits_output= # whether the output that this file writes is that of its next element
if [ "$#" -gt 3 ]; then
    shift 3
    elements=$*
elif [ "$#" -eq 3 ]; then
    all_tasks "$3"
else
    inherits_output=1 # `--output` names the first one's
    elements=
    while IFS= read -r line; do
        if [ "${line%% *}" = "$SLURM_ARRAY_TASK_ID" ]; then elements=$line; fi
    done <tasks
fi

failed=
for element in $elements; do
    [ -z "$stopped" ] || break
    dir=$array/elements/$element
    prepare
    set -- "$dir/job.sh" "$dir" "$requeues" "${array%/*}/checkpoint/$element" "$array/news"
    if [ -n "$inherits_output" ] && [ "$elements" = "$element" ]; then
        trap - TERM INT HUP USR1 USR2
        exec bash "$@"
    elif [ -n "$inherits_output" ]; then
        bash "$@" &
    else
        bash "$@" </dev/null >>"$dir/stdout.log" 2>>"$dir/stderr.log" &
    fi
    inherits_output=
    child=$!
    if [ -n "$stopped" ]; then # as the child was made; see `job.sh`
        sleep 0.2
        kill -s TERM -- "$child" 2>/dev/null
    fi
    wait_for_child
    child=
    if [ "$code" -ne 0 ]; then failed=$code; fi
done
[ -z "$failed" ] && exit 0
# xargs, which runs this file in a plain process, gives up all tasks at some of these.
[ -z "${SLURM_ARRAY_TASK_ID-}" ] && : >.failed && exit 0
exit "$failed"
