# Copies the payload's folder and the job's inputs to the node, and back what the payload has made there.
#
# Usage: . stage.sh in      before the payload: makes the copies, and names them by `work` and the variables of the inputs
#        . stage.sh into    beside the payload: names those that are there
#        bash stage.sh back after it: brings back what is new or changed, and removes the folder on the node
#        bash stage.sh leave                                         ... removes it alone
#
# All of them know DAGSTER_SLURM_RUN_DIR and DAGSTER_SLURM_RESTART_COUNT. stage.args there says which folder of the node is
# meant: text and a variable that follows it, in turn, each ended by NUL. The folder that is made below that stands in
# `staging.N` of the start N, and in `staged.N` once all is there. Exit code 93: it could not be done; stderr says why.
# Runs on bash 3.2, with the tools of GNU or BSD.

stage_record=$DAGSTER_SLURM_RUN_DIR/staged.$DAGSTER_SLURM_RESTART_COUNT
stage_begun=$DAGSTER_SLURM_RUN_DIR/staging.$DAGSTER_SLURM_RESTART_COUNT

stage_says() { # MESSAGE
    printf 'dagster-slurm: %s (on %s)\n' "$1" "$(uname -n)" >&2
}

stage_failed() { # MESSAGE
    stage_says "$1"
    exit 93
}

stage_base() { # sets `base`: the folder that the user has named
    local text name value
    base=
    while IFS= read -r -d '' text && IFS= read -r -d '' name; do
        value=${name:+${!name-}}
        # A plain process of a laptop: every program takes /tmp there.
        if [ "$name" = TMPDIR ] && [ -z "${SLURM_JOB_ID-}" ]; then value=${value:-/tmp}; fi
        [ -z "$name" ] || [ -n "$value" ] || stage_failed "\`stage\` names the variable $name, which the payload does not have"
        base+=$text$value
    done <"$DAGSTER_SLURM_RUN_DIR/stage.args"
    case $base in /*) ;; *) stage_failed "\`stage\` is no absolute path here: $base" ;; esac
    [ -d "$base" ] || stage_failed "there is no folder $base, which \`stage\` names"
    [ -w "$base" ] || stage_failed "nothing can be written to $base, which \`stage\` names"
}

stage_room() { # FILE...: whether the node has room for their copies
    local needs room
    needs=$(du -skHc -- "$@" | tail -n 1)
    needs=${needs%%[!0-9]*}
    room=$(df -Pk -- "$base" | sed -n '$s/^.* \([0-9][0-9]*\)  *[0-9][0-9]*% .*$/\1/p')
    # What can't be told is found out by copying.
    if [ -n "$needs" ] && [ -n "$room" ] && [ "$needs" -gt "$room" ]; then
        stage_failed "payload and inputs have $(((needs + 1023) / 1024)) MiB, and $base has room for $((room / 1024)) MiB:\
 ask for a node with more (\`tmp\` under \`resources\`), or name another folder in \`stage\`"
    fi
}

stage_source() { # VARIABLE: sets `source`, if it names a file or folder
    source=${!1}
    while [ "$source" != "${source%/}" ]; do source=${source%/}; done
    case $source in /*) [ -e "$source" ] ;; *) return 1 ;; esac
}

stage_names() { # FOLDER: sets `work`, the variables of what is copied there, and of the `words` those that name it
    local name source copy at
    export DAGSTER_SLURM_STAGE=$1
    # shellcheck disable=SC2034 # for who reads this file
    work=$1/payload
    for name in "${!DAGSTER_SLURM_INPUT_@}"; do
        copy=$1/inputs/$name
        { [ -d "$copy" ] && stage_source "$name"; } || continue
        copy+=/${source##*/}
        export "$name=$copy"
        for at in "${!words[@]}"; do
            case ${words[at]} in "$source" | "$source"/*) words[at]=$copy${words[at]#"$source"} ;; esac
        done
    done
}

stage_in() {
    local base node name source record sources=()
    [ "${SLURM_JOB_NUM_NODES:-1}" -eq 1 ] || stage_failed \
        "\`stage\` copies to one node, and the job has $SLURM_JOB_NUM_NODES: write \`nodes: 1\` under \`resources\`"
    for record in "$DAGSTER_SLURM_RUN_DIR"/stag{ing,ed}.*; do # of a start that was killed here
        if [ -e "$record" ] && [ -d "$(cat "$record")" ]; then stage_remove "$record"; fi
    done
    stage_base
    for name in "${!DAGSTER_SLURM_INPUT_@}"; do
        if stage_source "$name"; then sources+=("$source"); fi
    done
    stage_room "$DAGSTER_SLURM_RUN_DIR/payload" "${sources[@]}"
    node=$base/dg-slurm-${SLURM_JOB_ID:-$$}-$RANDOM$RANDOM$RANDOM
    # So that it is removed, whatever ends the job from now on.
    printf '%s' "$node" >"$stage_begun" || stage_failed "$stage_begun can't be written"
    if ! mkdir -m 700 -- "$node"; then
        rm -f -- "$stage_begun"
        stage_failed "no folder can be made in $base, which \`stage\` names"
    fi
    cp -a -- "$DAGSTER_SLURM_RUN_DIR/payload" "$node/" || stage_failed "the payload's folder can't be copied to $node"
    for name in "${!DAGSTER_SLURM_INPUT_@}"; do
        stage_source "$name" || continue
        { mkdir -p -- "$node/inputs/$name" && cp -aH -- "$source" "$node/inputs/$name/"; } ||
            stage_failed "the input $source can't be copied to $node"
    done
    # Arguments name programs of ours as beside the payload's folder.
    ln -s -- "$DAGSTER_SLURM_RUN_DIR/environment" "$DAGSTER_SLURM_RUN_DIR/launch" "$node/"
    (cd -- "$node" && find payload ! -type d -print0 >there) || stage_failed "$node/payload can't be listed"
    # What the payload changes is told by its time, so the clock of this file system, which goes in ticks, must go on first.
    : >"$node/begun"
    until [ -n "$(find "$node/tick" -newer "$node/begun" 2>/dev/null)" ]; do
        sleep 0.01
        echo >"$node/tick" || stage_failed "nothing can be written to $node"
    done
    mv -f -- "$stage_begun" "$stage_record"
    stage_names "$node"
}

is_folder() { # PATH: and no link to one
    [ -d "$1" ] && [ ! -L "$1" ]
}

is_large() { # PATH...: so that copying them takes a moment, in which everything may be killed
    local size
    size=$(du -skc -- "$@" | tail -n 1)
    size=${size%%[!0-9]*}
    [ "${size:-0}" -gt 262144 ]
}

copy_mode() { # FROM TO
    local mode
    mode=$(stat -c %a -- "$1" 2>/dev/null || stat -f %Lp -- "$1") && chmod "$mode" "$2"
}

bring_files() { # FOLDER FILE...: copies files into a folder, each whole or not at all
    local to=$1 some each
    shift
    while [ "$#" -gt 0 ]; do
        some=("${@:1:500}") # an argument list has an end
        shift "${#some[@]}"
        if { [ "${#some[@]}" -eq 1 ] || ! is_large "${some[@]}"; } && cp -a -- "${some[@]}" "$new/"; then
            for each in "$new"/*; do
                if is_folder "$to/${each##*/}"; then rm -rf -- "${to:?}/${each##*/}"; fi
            done
            mv -f -- "$new"/* "$to/" || failed=1
        elif [ "${#some[@]}" -gt 1 ]; then # one by one
            rm -rf -- "${new:?}"/*
            for each in "${some[@]}"; do bring_files "$to" "$each"; done
        else
            failed=1
        fi
        rm -rf -- "${new:?}"/*
    done
}

bring_folder() { # FOLDER FROM: a folder that is not there
    local to=$1 name=${2##*/}
    if ! is_large "$2" && cp -a -- "$2" "$new/"; then
        chmod u+w -- "$new/$name" # or it could not be moved
        { rm -f -- "$to/$name" && mv -- "$new/$name" "$to/"; } || failed=1
    else # file by file
        remove_folder "$new/$name"
        if rm -f -- "$to/$name" && mkdir -- "$to/$name"; then bring_back "$2" "$to/$name"; else failed=1; fi
    fi
    copy_mode "$2" "$to/$name" || failed=1
}

bring_back() { # FROM TO: what is new or changed in a folder
    local from=$1 to=$2 path there files=()
    while IFS= read -r -d '' path; do
        files+=("$path")
    done < <(find "$from" -mindepth 1 -maxdepth 1 ! -type d -cnewer "$node/begun" -print0 || printf '\0')
    while IFS= read -r -d '' path; do
        there=$to/${path##*/}
        if [ -z "$path" ]; then # `find` has failed
            failed=1
        elif is_folder "$path"; then
            if is_folder "$there"; then bring_back "$path" "$there"; else bring_folder "$to" "$path"; fi
        # A folder that got another name, or another one's, has files that are as old as ever.
        elif is_folder "$there" || [ "$path" -nt "$there" ] || [ "$path" -ot "$there" ]; then
            files+=("$path")
        elif [ ! -e "$there" ] && [ ! -L "$there" ]; then
            files+=("$path")
        fi
    done < <(find "$from" -mindepth 1 -maxdepth 1 \( -type d -o ! -cnewer "$node/begun" \) -print0 || printf '\0')
    bring_files "$to" "${files[@]}"
}

remove_gone() { # what the payload has removed or renamed is not there either
    local path gone=()
    while IFS= read -r -d '' path; do
        [ -e "$node/$path" ] || [ -L "$node/$path" ] || gone+=("$DAGSTER_SLURM_RUN_DIR/$path")
    done <"$node/there"
    [ "${#gone[@]}" -eq 0 ] || printf '%s\0' "${gone[@]}" | xargs -0 rm -f -- || failed=1
}

stage_back() {
    local node new=$DAGSTER_SLURM_RUN_DIR/.staged failed=
    [ -e "$stage_record" ] || return 0 # the payload had not begun
    node=$(cat "$stage_record")
    shopt -s dotglob nullglob
    remove_folder "$new"
    if [ -d "$node/payload" ] && [ -e "$node/begun" ] && mkdir -- "$new"; then
        # Sockets and the like are of no use to anybody any more.
        find "$node/payload" ! -type f ! -type d ! -type l -exec rm -f -- {} +
        bring_back "$node/payload" "$DAGSTER_SLURM_RUN_DIR/payload"
        [ -n "$failed" ] || remove_gone
    else
        failed=1
    fi
    remove_folder "$new"
    [ -z "$failed" ] ||
        stage_says "not all that the payload made in $node/payload could be copied back to $DAGSTER_SLURM_RUN_DIR/payload"
    [ -z "$failed" ]
}

remove_folder() { # PATH
    rm -rf -- "$1" 2>/dev/null && return
    # Payloads leave folders that nobody may write to.
    find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
    rm -rf -- "$1" || stage_says "$1 could not be removed"
}

stage_remove() { # RECORD: removes what it names
    [ -e "$1" ] || return 0
    remove_folder "$(cat "$1")"
    rm -f -- "$1"
}

case $1 in
in) stage_in ;;
into) [ ! -d "$(cat "$stage_record" 2>/dev/null)/payload" ] || stage_names "$(cat "$stage_record")" ;;
*)
    code=0
    [ "$1" = leave ] || stage_back || code=93
    stage_remove "$stage_begun"
    stage_remove "$stage_record"
    exit "$code"
    ;;
esac
