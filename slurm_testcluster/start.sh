#!/bin/sh
# start.sh PID_FILE LOG PROGRAM [ARG...]
# Become PROGRAM after writing "pid start_time boot_id" to PID_FILE. The start time (field 22 of
# /proc/PID/stat) and the boot id keep a reused process id from being taken for ours after a reboot.
set -eu
umask 022
pid_file=$1
log=$2
shift 2
start_time=$(cut -d ' ' -f 22 "/proc/$$/stat")
boot_id=$(cat /proc/sys/kernel/random/boot_id)
echo "$$ $start_time $boot_id" >"$pid_file.new"
mv "$pid_file.new" "$pid_file"
exec "$@" </dev/null >>"$log" 2>&1
