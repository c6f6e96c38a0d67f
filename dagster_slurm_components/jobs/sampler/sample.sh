# Starts `sample.py`, which writes down what a job uses on this node until standard input ends; where there is no Python, does
# the most needed of it itself: CPU time and memory, by the job's cgroup or /proc.
#
# Usage: sample.sh FILE ROOT STARTED, in the run directory; `sample.py` says what these are. On bash 3.2 (macOS) it can only
# start Python.

umask 077
file=$1
root=$2
begun=${3%.*}
here=${BASH_SOURCE[0]%/*}

# What the user wrote of the GPUs, and where the host's Python is, stands with the payload's variables.
given() { # NAME
    # shellcheck source=/dev/null
    (. ./job.env && printf '%s' "${!1-}") 2>/dev/null
}
for name in CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES; do
    value=$(given "$name")
    if [ -n "$value" ]; then export "$name=$value"; fi
done
python=$(given DAGSTER_SLURM_HOST_PYTHON)
python=${python:-$(command -v python3)}
if [ -n "$python" ] && "$python" -E -s -S -c 'import sys; sys.exit(sys.version_info < (3, 6))'; then
    exec "$python" -E -s -S -B "$here/sample.py" "$@"
fi

[ "${BASH_VERSINFO[0]}" -ge 4 ] && [ -r "/proc/$root/stat" ] || exit 0

job=/nowhere # the job's cgroup, of version 2
while IFS= read -r entry; do
    case $entry in
    0::*"/job_${SLURM_JOB_ID:-none}"*) job=/sys/fs/cgroup${entry#0::} job=${job%%/job_*}/job_$SLURM_JOB_ID ;;
    esac
done </proc/self/cgroup
from=processes
[ -r "$job/memory.current" ] && from=cgroup2
page=$(getconf PAGESIZE)
tick=$(getconf CLK_TCK)
cpu=0 # in hundredths of a second
peak=0

processes() { # sets `memory`, raises `cpu`: sums over the descendants of `root`
    local -A parents=() used=()
    local path line pid fields at sum=0 resident shared rest
    for path in /proc/[0-9]*; do
        { read -r line <"$path/stat"; } 2>/dev/null || continue
        pid=${path#/proc/}
        read -r -a fields <<<"${line##*) }"
        parents[$pid]=${fields[1]}
        used[$pid]=$((fields[11] + fields[12] + fields[13] + fields[14]))
    done
    memory=0
    for pid in "${!parents[@]}"; do
        at=$pid
        while [ "$at" != "$root" ] && [ "$at" != $$ ] && [ -n "${parents[$at]-}" ]; do at=${parents[$at]}; done
        [ "$at" = "$root" ] || continue
        { read -r _ resident shared rest <"/proc/$pid/statm"; } 2>/dev/null || continue
        memory=$((memory + (resident - shared) * page))
        sum=$((sum + used[$pid] * 100 / tick))
    done
    if [ "$sum" -gt "$cpu" ]; then cpu=$sum; fi
}

cgroup() { # sets `memory` and `cpu`
    local key value
    read -r memory <"$job/memory.current"
    while read -r key value; do
        if [ "$key" = inactive_file ]; then memory=$((memory - value)); fi
    done <"$job/memory.stat"
    while read -r key value; do
        if [ "$key" = usage_usec ]; then cpu=$((value / 10000)); fi
    done <"$job/cpu.stat"
}

node=${SLURMD_NODENAME:-$(uname -n)}
printf '{"node":"%s","t":%s,"cpus":%s,"memory":null,"from":"%s","gpus":[]}\n' \
    "$node" "$begun" "${SLURM_CPUS_ON_NODE:-$(getconf _NPROCESSORS_ONLN)}" "$from" >>"$file"
ended=
while :; do
    if [ "$from" = cgroup2 ]; then cgroup; else processes; fi 2>/dev/null
    if [ "$memory" -gt "$peak" ]; then peak=$memory; fi
    age=$(($(date +%s) - begun))
    printf '{"t":%s,"cpu":%s.%02d,"mem":%s,"peak":%s}\n' \
        "$age" $((cpu / 100)) $((cpu % 100)) "$memory" "$peak" >>"$file"
    [ -z "$ended" ] || exit 0
    # A look at all processes costs bash some 50 ms: 0.2 % of 30 s. Every 5 minutes a line is a week in 200 KiB.
    read -r -t $((age / 20 > 300 ? 300 : age / 20 < 30 ? 30 : age / 20)) _
    [ $? -gt 128 ] || ended=1
done
