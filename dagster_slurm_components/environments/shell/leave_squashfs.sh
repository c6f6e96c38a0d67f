# Unmounts an environment's image when its job ends, on all of its nodes.
#
# Usage: leave_squashfs.sh RUN_DIR [here]

IFS= read -r folder <"$1/environment/mounted" || exit 0
if [ -z "${2-}" ] && [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
    srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        bash "$1/environment/leave.sh" "$1" here
fi
mountpoint -q "$folder" || exit 0
# With -z if a process that the payload left behind is in it: the mount goes with the last one.
fusermount3 -u "$folder" 2>/dev/null || fusermount -u "$folder" 2>/dev/null ||
    fusermount3 -uz "$folder" 2>/dev/null || fusermount -uz "$folder"
rmdir "$folder" 2>/dev/null
exit 0
