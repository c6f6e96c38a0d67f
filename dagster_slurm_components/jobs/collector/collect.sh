# Starts `collect.py`, in the run directory, with the host's Python.
#
# Usage: collect.sh. Exit code 95: there is no Python, so that nothing was looked for.

python=$(
    # shellcheck source=/dev/null
    (. ./job.env && printf '%s' "${DAGSTER_SLURM_HOST_PYTHON-}") 2>/dev/null
)
python=${python:-$(command -v python3)}
if [ -z "$python" ] || ! "$python" -E -s -S -c 'import sys; sys.exit(sys.version_info < (3, 6))'; then
    echo "The outputs are not checked: $(uname -n) has no python3 of version 3.6 or newer." >&2
    exit 95
fi
exec "$python" -E -s -S -B "${BASH_SOURCE[0]%/*}/collect.py"
