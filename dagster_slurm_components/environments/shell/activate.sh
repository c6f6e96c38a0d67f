# Makes the environment the payload's own: one function a kind of step, read from activate.args.
#
# Sourced by job.sh, so no `set -u` or `set -e` here: activation scripts of modules and conda packages use unset
# variables and failing commands freely. A step that fails says so on stderr and ends the job before the payload.

activation_failed() { # MESSAGE
    printf 'dagster-slurm: %s (on %s)\n' "$1" "${HOSTNAME:-$(uname -n)}" >&2
    exit 96
}

find_modules() { # define `module`, as the node's login shells have it
    local init path=$PATH mask
    mask=$(umask)
    if ! type module >/dev/null 2>&1; then
        for init in "${LMOD_PKG:-/nonexistent}/init/bash" "${MODULESHOME:-/nonexistent}/init/bash" \
            /etc/profile.d/z00_lmod.sh /etc/profile.d/lmod.sh /etc/profile.d/modules.sh \
            /usr/share/lmod/lmod/init/bash /usr/share/modules/init/bash /usr/share/Modules/init/bash; do
            # shellcheck source=/dev/null
            [ -r "$init" ] && . "$init" && type module >/dev/null 2>&1 && break
        done
    fi
    if ! type module >/dev/null 2>&1 || [ -z "${MODULEPATH-}" ]; then
        # A site may define it elsewhere, or say elsewhere where its modules lie. The job's own PATH and umask stay.
        # shellcheck source=/dev/null
        [ -r /etc/profile ] && . /etc/profile >/dev/null
        export PATH=$PATH:$path
        umask "$mask"
    fi
    type module >/dev/null 2>&1
}

module_is_loaded() { # NAME
    local file
    case ":${LOADEDMODULES-}:" in *":$1:"* | *":$1/"* | *":$1."*) return 0 ;; esac
    # It may be an alias, or a version by its symbolic name. `module is-loaded` knows that in Environment Modules, but
    # not in Lmod 8.6; the file that a name stands for is told by both.
    file=$(module show "$1" 2>&1 | sed -n 's#^ *\(/.*\):$#\1#p' | head -n 1)
    case ":${_LMFILES_-}:" in *":${file:-/nonexistent}:"*) return 0 ;; esac
    return 1
}

activate_modules() { # NAME...: Lmod or Environment Modules
    local name
    find_modules ||
        activation_failed "modules were asked for ($*), but this node has neither Lmod nor Environment Modules"
    for name in "$@"; do module load "$name" || activation_failed "module load $name failed"; done
    # The exit status of `module load` can't be trusted: older Lmod and Tcl modules return 0 on failure, and Lmod
    # replaces a module silently by another version or one of its family. So what counts is what is there in the end.
    for name in "$@"; do
        module_is_loaded "$name" ||
            activation_failed "module $name is not loaded, or a later one replaced it; loaded are: ${LOADEDMODULES:-none}"
    done
}

activate_prefix() { # PATH: a virtual environment or a conda-style prefix
    local prefix=$1 script
    [ -d "$prefix" ] || activation_failed "the environment $prefix does not exist"
    # A link may lead to a Python that login nodes have, and this node has not: `python3` of the system is no stand-in.
    [ -x "$prefix/bin/python" ] || { [ ! -e "$prefix/bin/python" ] && [ ! -L "$prefix/bin/python" ]; } ||
        activation_failed "$prefix/bin/python can't be executed"
    unset PYTHONHOME
    export PATH=$prefix/bin${PATH:+:$PATH}
    if [ -d "$prefix/conda-meta" ]; then
        export CONDA_PREFIX=$prefix
        for script in "$prefix"/etc/conda/activate.d/*.sh; do
            # shellcheck source=/dev/null
            [ -r "$script" ] && . "$script"
        done
    elif [ -e "$prefix/pyvenv.cfg" ]; then
        export VIRTUAL_ENV=$prefix
    fi
    if [ -x "$prefix/bin/python" ]; then export DAGSTER_SLURM_PYTHON=$prefix/bin/python; fi
}

activate_squashfs() { # IMAGE: a virtual environment as one file, mounted on each of the job's nodes until it ends
    local mount=$DAGSTER_SLURM_RUN_DIR/environment/mount_squashfs.sh nodes=${SLURM_JOB_NUM_NODES:-1} folder everywhere
    folder=/tmp/dagster-slurm-mount-$(id -u)-${SLURM_JOB_ID:-$$}-${DAGSTER_SLURM_RESTART_COUNT:-0}
    type -P squashfuse_ll >/dev/null || type -P squashfuse >/dev/null ||
        activation_failed "the environment is a squashfs image, but this node has no squashfuse:\
 load a module that brings it, or set the environment's \`form\` to \`folder\`"
    [ -r "$1" ] || activation_failed "the environment $1 does not exist or can't be read"
    printf '%s\n' "$folder" >"$DAGSTER_SLURM_RUN_DIR/environment/mounted"
    bash "$mount" now "$1" "$folder" ||
        activation_failed "$1 can't be mounted at $folder: FUSE may be switched off on this node (/dev/fuse, fusermount)"
    if [ "$nodes" -gt 1 ]; then
        everywhere=(srun --overlap "--nodes=$nodes" "--ntasks=$nodes" --ntasks-per-node=1 bash "$mount")
        setsid "${everywhere[@]}" hold "$1" "$folder" & # a session of its own: the payload's signals are not for it
        "${everywhere[@]}" await "$1" "$folder" || activation_failed "$1 can't be mounted on all of the job's nodes"
    fi
    activate_prefix "$folder"
}

activate_python() { # PATH: one interpreter
    [ -x "$1" ] || activation_failed "the interpreter $1 does not exist or can't be executed"
    export DAGSTER_SLURM_PYTHON=$1
    export PATH=${1%/*}${PATH:+:$PATH}
}

activate_before_modules() { # FILE TEXT: as setup; `module use` is one of them
    find_modules
    activate_setup "$@"
}

activate_setup() { # FILE TEXT: one of the environment's setup commands, a file in the run directory
    # shellcheck source=/dev/null
    . "$DAGSTER_SLURM_RUN_DIR/$1" || activation_failed "this command of the environment's setup failed: $2"
}

activate_verify() { # names|full FOLDER: the environment compares itself with the lock
    local environment=$DAGSTER_SLURM_RUN_DIR/environment
    [ -x "${DAGSTER_SLURM_PYTHON-}" ] || activation_failed "the environment $2 has no Python that can be executed"
    "$DAGSTER_SLURM_PYTHON" -I "$environment/verify_environment.py" "$1" "$environment/manifest.json" "$2" ||
        activation_failed "the environment $2 is not what the lock says; the differences are listed above.\
 To make it anew: dg-slurm env deploy --rebuild"
}

activate_image() { # RUNTIME IMAGE [SHA256]: a container's image, before the payload runs in it
    local program=$1 plugin='' missing='' said
    case $1 in
    charliecloud) program=ch-run ;;
    pyxis) program=srun plugin=--container-image ;;
    edf) program=srun plugin=--environment ;;
    esac
    type "$program" >/dev/null 2>&1 || activation_failed \
        "there is no $program on this node: load a module that brings it, or set the environment's \`runtime\`"
    if [ -n "$plugin" ]; then
        said=$(srun --help 2>&1)
        case $said in *"$plugin"*) ;; *) activation_failed "srun has no $plugin here: the plugin for such containers is missing" ;; esac
    fi
    case $2 in
    /*) [ -r "$2" ] || activation_failed "the image $2 can't be read" ;;
    esac
    [ -z "${3-}" ] || printf '%s  %s\n' "$3" "$2" | sha256sum --check --status ||
        activation_failed "the image $2 has another content than the one that was sent"
    # What most runtimes cannot do without. Some have a part that may do more than the user, so it is their word that counts.
    if [ -n "$plugin" ]; then return; fi
    unshare --user true 2>/dev/null || missing='user namespaces are switched off'
    [ -d "$2" ] || [ -w /dev/fuse ] || missing="${missing:+$missing, and }there is no FUSE (/dev/fuse)"
    if [ -z "$missing" ]; then return; fi
    said=$(bash "$DAGSTER_SLURM_RUN_DIR/environment/in_container.sh" true 2>&1) ||
        activation_failed "$1 can't run $2 here: $missing. Ask the site, or set another \`runtime\`. It said: ${said##*$'\n'}"
}

activate_all() {
    local words=() word at=0 kind count
    while IFS= read -r -d '' word; do words+=("$word"); done <"$DAGSTER_SLURM_RUN_DIR/activate.args"
    while [ "$at" -lt "${#words[@]}" ]; do
        kind=${words[at]} count=${words[at + 1]}
        "activate_$kind" "${words[@]:at+2:count}"
        at=$((at + 2 + count))
    done
}

activate_all
