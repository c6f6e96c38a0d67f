#!/bin/sh
# enter.sh NAME HOSTS PROGRAM [ARG...]
# Run PROGRAM in the fresh UTS and mount namespaces this script was started in, under host name NAME and
# with the file HOSTS as /etc/hosts. Both end with the last process inside: nothing is left to undo.
set -eu
hostname "$1"
mount --bind "$2" /etc/hosts
shift 2
exec "$@"
