# Says where each process of a job's payload stands on this node: Python's frames by py-spy, where the payload's environment
# has it, else what the kernel tells. It stops no process and sends no signal: a payload may mean something else by it.
#
# Usage, by into.sh: stacks.sh RUN_DIR

run_dir=$1
node=${SLURMD_NODENAME:-$(uname -n)}
spy=$(type -P py-spy)
found='' without=''

from_kernel() { # FOLDER in /proc
    local thread state name wait
    for thread in "$1"/task/*; do
        { read -r name <"$thread/comm" && state=$(sed -n 's/^State:[[:space:]]*//p' "$thread/status"); } 2>/dev/null || continue
        wait=$(cat "$thread/wchan" 2>/dev/null)
        printf '    thread %s (%s): %s%s\n' "${thread##*/}" "$name" "$state" "${wait:+, in $wait}"
    done
}

if ! [ -r /proc/self/environ ]; then
    echo "$node: no processes can be seen there: it has no /proc"
    exit 0
fi
for folder in /proc/[0-9]*; do
    environment=$'\n'$(tr '\0' '\n' 2>/dev/null <"$folder/environ")$'\n' 2>/dev/null || continue
    case $environment in *$'\n'"DAGSTER_SLURM_RUN_DIR=$run_dir"$'\n'*) ;; *) continue ;; esac
    case $environment in *$'\n'DAGSTER_SLURM_INTO=*) continue ;; esac # ours, as this one
    case $environment in # nodes may share a machine
    *$'\n'"SLURMD_NODENAME=$node"$'\n'*) ;;
    *$'\n'SLURMD_NODENAME=*) continue ;;
    esac
    command=$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline")
    case $command in '' | *"$run_dir/launch"* | *"$run_dir/environment/"* | *"$run_dir/sampler/"* | *"/job.sh $run_dir "*) continue ;; esac
    rank=${environment#*$'\n'RANK=}
    [ "$rank" != "$environment" ] || rank=${environment#*$'\n'SLURM_PROCID=}
    if [ "$rank" = "$environment" ]; then rank=; else rank=", rank ${rank%%$'\n'*}"; fi
    found=1
    printf '%s, process %s%s: %s\n' "$node" "${folder##*/}" "$rank" "$command"
    program=$(readlink "$folder/exe")
    case ${program##*/} in
    python*)
        if [ -z "$spy" ]; then
            without=1
        elif said=$(timeout 30 "$spy" dump --nonblocking --pid "${folder##*/}" 2>&1); then
            printf '%s\n' "$said" | sed -n '/^Thread/,$s/^/    /p'
            continue
        else
            printf '    py-spy failed: %s\n' "${said##*$'\n'}"
        fi
        ;;
    esac
    from_kernel "$folder"
done
if [ -z "$found" ]; then echo "$node: no process of the payload runs there"; fi
if [ -n "$without" ]; then echo "$node: with py-spy in the payload's environment Python's own frames would stand here"; fi
