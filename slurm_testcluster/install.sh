#!/bin/sh
# Install the Debian packages named as arguments, as root, and let none of their services run.
# The cluster starts its own daemons; a laptop that asked for a test cluster must not find itself with
# an SSH server on all its interfaces. So services are kept from starting during the installation
# (policy-rc.d) and those which the installation enabled are disabled again.
set -eu

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

new=""
for unit in ssh.service ssh.socket munge.service slurmctld.service slurmd.service slurmdbd.service postgresql.service; do
    [ -e "/lib/systemd/system/$unit" ] || new="$new $unit"
done

DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
install_packages() {
    apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 -- "$@"
}
# A fresh container has no package lists at all, and old lists name versions that are gone.
install_packages "$@" || { apt-get update && install_packages "$@"; }

if command -v systemctl >/dev/null 2>&1; then
    for unit in $new; do
        if [ -e "/lib/systemd/system/$unit" ]; then
            systemctl disable "$unit" >/dev/null 2>&1 || echo "could not disable $unit" >&2
        fi
    done
fi
