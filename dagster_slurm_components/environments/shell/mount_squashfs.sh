# Mounts an environment's image on this node, for the time of a job.
#
# Usage: mount_squashfs.sh now|hold|await IMAGE FOLDER
#
# now: mounts it and returns. hold: stays as long as it is mounted, as a step of a job on several nodes: what a step leaves
# behind is killed at its end. await: returns when it is mounted, or fails after a minute.
#
# Mounts are seen by their node alone, and each job has its own: a shared one would end with the job that made it.

how=$1 image=$2 folder=$3

unmount_dead() { # of jobs that were killed before they could unmount; they would stay until the node is restarted
    local left
    for left in "/tmp/dagster-slurm-mount-$(id -u)"-*; do
        # Listed, not looked at: what the kernel remembers of the folder itself outlives the process behind it.
        if [ "${left##*-}" != "*" ] && ! ls "$left" >/dev/null 2>&1; then # "Transport endpoint is not connected"
            fusermount3 -uz "$left" 2>/dev/null || fusermount -uz "$left" 2>/dev/null
            rmdir "$left" 2>/dev/null
        fi
    done
}

if [ "$how" = await ]; then
    for _ in {1..600}; do
        mountpoint -q "$folder" && exit 0
        sleep 0.1
    done
    printf '%s is not mounted on %s\n' "$image" "$(uname -n)" >&2
    exit 1
fi

mountpoint -q "$folder" && exit 0 # on the job's first node, where it was mounted by `now`
unmount_dead
if ! mkdir -m 700 "$folder" 2>/dev/null && { [ ! -O "$folder" ] || [ -L "$folder" ]; }; then
    printf '%s belongs to somebody else\n' "$folder" >&2 # /tmp is everybody's
    exit 1
fi
program=$(type -P squashfuse_ll || type -P squashfuse)
# What tells the payload to end must not take its software away; FUSE leaves signals alone that are ignored before.
trap '' HUP INT TERM USR1 USR2
if [ "$how" = hold ]; then
    "$program" -f "$image" "$folder"
else
    "$program" "$image" "$folder"
fi
code=$?
[ "$how" = now ] && [ "$code" -eq 0 ] || rmdir "$folder" 2>/dev/null
exit "$code"
