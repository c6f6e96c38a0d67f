#!/bin/sh
# enter_root.sh ROOT SHARED... -- COMMAND [ARG...]
# Run COMMAND with ROOT as its root folder, in the fresh mount and PID namespaces that this script was started in. SHARED
# are paths to be seen inside at the same place; one that begins with `ro:` can't be written there. Nothing is left to
# undo: the mounts end with the last process inside, and the processes with this script.
# pivot_root and not chroot: Apptainer refuses to run in a plain chroot.
set -eu
root=$1
here=$PWD
shift
# The lock of whoever uses the root is for `unshare` to hold, not for the command.
exec 9<&-

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# Recursively: Slurm looks for cgroups below /sys, terminals and shared memory lie below /dev.
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
while [ "$1" != -- ]; do
    path=${1#ro:}
    if [ -d "$path" ]; then
        mkdir -p "$root$path"
        mount --rbind "$path" "$root$path"
    else
        [ -e "$root$path" ] || : >"$root$path"
        mount --bind "$path" "$root$path"
    fi
    [ "$path" = "$1" ] || mount -o remount,bind,ro "$root$path"
    shift
done
shift

cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
cd /
umount -l /mnt/old
cd "$here" 2>/dev/null || cd /
# Not `exec`: the first process of a PID namespace has to bury the daemons that outlive their parents, as the shell does.
status=0
"$@" || status=$?
exit $status
