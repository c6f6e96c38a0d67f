# Starts the satellite where the profile's host has a `setup` or names its `python`: read by `bash -s` from its standard
# input, where there follow, each ended by a NUL, the setup's commands and the interpreter; then the satellite's program.
#
# Usage: bash -s PROGRAM LENGTH COMMANDS SECONDS
#
# PROGRAM is Python text that reads LENGTH bytes of program; the setup has SECONDS to end. In braces: bash has read all of
# this before it does anything, and `read`, which takes a byte at a time, leaves the satellite's program to Python.
{
    dss_program=$1 dss_length=$2 dss_left=$3 dss_seconds=$4 # the setup may change $1
    ( # sshd gives each command a process group of its own, with which a setup that hangs is ended
        trap 'kill "$!"; wait; exit' TERM
        sleep "$dss_seconds" >/dev/null &
        wait
        printf "\ndagster-slurm: the host's setup did not end within %s s\n" "$dss_seconds"
        kill -s KILL 0
    ) </dev/null 2>/dev/null &
    dss_watchdog=$!
    trap 'kill "$dss_watchdog"' EXIT
    while [ "$dss_left" -gt 0 ]; do
        IFS= read -r -d '' dss_command
        eval "$dss_command" </dev/null 2>&1 || {
            printf "\ndagster-slurm: the host's setup ended with status %s: %s\n" "$?" "$dss_command"
            exit 1
        }
        dss_left=$((dss_left - 1))
    done
    kill "$dss_watchdog"
    wait "$dss_watchdog"
    IFS= read -r -d '' DAGSTER_SLURM_HOST_PYTHON
    export DAGSTER_SLURM_HOST_PYTHON=${DAGSTER_SLURM_HOST_PYTHON/#~\//$HOME/} # jobs look for the same one
    exec "$DAGSTER_SLURM_HOST_PYTHON" -I -S -c "$dss_program" "$dss_length"
}
