# shellcheck shell=bash
# Reports to Dagster from a shell payload, and helps it to stop in time. It lies in every job: `. pipes.sh`.
#
#   pipes_log TEXT [LEVEL]                                     DEBUG, INFO, WARNING, ERROR or CRITICAL
#   pipes_materialize ASSET [--data-version V] [METADATA...]   NAME=VALUE or NAME:TYPE=VALUE, Dagster's types
#   pipes_check ASSET NAME true|false [--severity WARN] [METADATA...]
#   pipes_progress DONE TOTAL [TEXT]                           a log line for each whole percent at most
#   pipes_extra NAME [DEFAULT]                                 prints it: text as it is, all else as JSON
#   pipes_partition_key, _range, _window, _keys                print one key, two ends, one key a line
#   pipes_listen; pipes_asked; pipes_leave                     the signal that asks for a checkpoint
#   pipes_save NAME <DATA; pipes_load NAME >DATA; pipes_folder; pipes_restart_count
#
# A message is one line of JSON, appended by one write, so that lines of several processes don't mix. Outside of a job
# messages go to stdout. A mistake in a call is told on stderr and returns 2; nothing is sent then. Runs on bash 3.2.

_pipes_mistake() { # TEXT
    printf 'pipes.sh: %s\n' "$1" >&2
    return 2
}

_pipes_send() { # METHOD PARAMS-AS-JSON
    local line
    if [ -z "${DAGSTER_SLURM_MESSAGES-}" ]; then
        printf '%s %s\n' "$1" "$2"
        return
    fi
    line="{\"__dagster_pipes_version\": \"0.1\", \"method\": \"$1\", \"params\": $2}"
    if [ "${#line}" -lt 1000 ]; then
        printf '%s\n' "$line" >>"$DAGSTER_SLURM_MESSAGES"
    else # which printf would write in pieces
        printf '%s\n' "$line" | dd obs=1048576 2>/dev/null >>"$DAGSTER_SLURM_MESSAGES"
    fi
}

_pipes_string() { # TEXT: prints it as JSON
    local text=$1 rest code character
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\r'/\\r}
    text=${text//$'\t'/\\t}
    if [[ $text == *[[:cntrl:]]* ]]; then
        for code in 01 02 03 04 05 06 07 08 0b 0c 0e 0f 1{0..9} 1{a..f}; do
            printf -v character '%b' "\\x$code"
            rest=$text text=
            while [[ $rest == *"$character"* ]]; do
                text+="${rest%%"$character"*}\\u00$code"
                rest=${rest#*"$character"}
            done
            text+=$rest
        done
    fi
    printf '"%s"' "$text"
}

_pipes_value() { # TYPE VALUE: prints one value of metadata; numbers that are not finite are text
    local type=$1 value=$2 raw whole='^-?(0|[1-9][0-9]*)$' # bash 3.2 takes such a pattern from a variable only
    local number="${whole%\$}(\.[0-9]+)?([eE][-+]?[0-9]+)?\$"
    raw=$(_pipes_string "$value")
    case $type in
    __infer__) if [[ $value =~ $number && $value != *[eE]* ]]; then raw=$value; fi ;;
    int)
        [[ $value =~ $whole ]] || { _pipes_mistake "no int: $value" || return; }
        raw=$value
        ;;
    float | timestamp)
        case $value in
        [nN][aA][nN] | -[nN][aA][nN]) type=text raw='"nan"' ;;
        [iI][nN][fF]* | +[iI][nN][fF]*) type=text raw='"inf"' ;;
        -[iI][nN][fF]*) type=text raw='"-inf"' ;;
        *)
            [[ $value =~ $number ]] || { _pipes_mistake "no $type: $value" || return; }
            raw=$value
            ;;
        esac
        ;;
    bool)
        [[ $value == true || $value == false ]] || { _pipes_mistake "neither true nor false: $value" || return; }
        raw=$value
        ;;
    null) raw=null ;;
    json | table | table_schema | table_column_lineage) raw=${value//[$'\n\r\t']/ } ;;
    text | url | path | notebook | md | dagster_run | asset) ;;
    *) _pipes_mistake "no type of Dagster's metadata: $type" || return ;;
    esac
    printf '{"raw_value": %s, "type": "%s"}' "$raw" "$type"
}

_pipes_metadata() { # [NAME[:TYPE]=VALUE...]: prints them as JSON
    local pair name type value all=
    for pair in "$@"; do
        [[ $pair == *=* ]] || { _pipes_mistake "metadata is NAME=VALUE or NAME:TYPE=VALUE, not: $pair" || return; }
        name=${pair%%=*} type=__infer__
        if [[ $name == *:* ]]; then type=${name##*:} name=${name%:*}; fi
        value=$(_pipes_value "$type" "${pair#*=}") || return
        all+="${all:+, }$(_pipes_string "$name"): $value"
    done
    printf '{%s}' "$all"
}

pipes_log() { # TEXT [LEVEL]
    case ${2-INFO} in
    DEBUG | INFO | WARNING | ERROR | CRITICAL) ;;
    *) _pipes_mistake "no level: $2" || return ;;
    esac
    _pipes_send log "{\"message\": $(_pipes_string "$1"), \"level\": \"${2-INFO}\"}"
}

pipes_materialize() { # ASSET [--data-version VERSION] [METADATA...]
    local asset=$1 version=null metadata
    shift
    if [ "${1-}" = --data-version ]; then
        version=$(_pipes_string "$2")
        shift 2
    fi
    metadata=$(_pipes_metadata "$@") || return
    _pipes_send report_asset_materialization \
        "{\"asset_key\": $(_pipes_string "$asset"), \"data_version\": $version, \"metadata\": $metadata}"
}

pipes_check() { # ASSET NAME true|false [--severity WARN|ERROR] [METADATA...]
    local asset=$1 name=$2 passed=${3-} severity=ERROR metadata
    [[ $passed == true || $passed == false ]] ||
        { _pipes_mistake "whether the check $name passed is true or false, not: $passed" || return; }
    shift 3
    if [ "${1-}" = --severity ]; then
        severity=${2-}
        [[ $severity == WARN || $severity == ERROR ]] ||
            { _pipes_mistake "a severity is WARN or ERROR, not: $severity" || return; }
        shift 2
    fi
    metadata=$(_pipes_metadata "$@") || return
    _pipes_send report_asset_check "{\"asset_key\": $(_pipes_string "$asset"), \"check_name\": $(_pipes_string "$name"), \
\"passed\": $passed, \"severity\": \"$severity\", \"metadata\": $metadata}"
}

pipes_progress() { # DONE TOTAL [TEXT]
    [[ ${1-} =~ ^[0-9]+$ && ${2-} =~ ^0*[1-9][0-9]*$ ]] ||
        { _pipes_mistake "progress is two whole numbers, DONE and TOTAL, not: ${1-} ${2-}" || return; }
    local percent=$((100 * 10#$1 / 10#$2))
    if [ "$percent" != "${_pipes_percent-}" ]; then
        _pipes_percent=$percent
        pipes_log "$percent % ($1 of $2)${3:+: $3}"
    fi
}

pipes_extra() { # NAME [DEFAULT]
    local name value file=${DAGSTER_SLURM_RUN_DIR-}/extras.tsv
    if [ -r "$file" ]; then
        while IFS=$'\t' read -r name value; do
            if [ "$(printf '%b.' "$name")" = "$1." ]; then
                printf '%b\n' "$value"
                return
            fi
        done <"$file"
    fi
    if [ "$#" -lt 2 ]; then _pipes_mistake "there is no extra $1" || return; fi
    printf '%s\n' "$2"
}

_pipes_variables() { # NAME...: prints their values, one a line
    local name
    for name in "$@"; do
        [ -n "${!name+set}" ] || { _pipes_mistake "$name is not set: the run has no such partition" || return; }
        printf '%s\n' "${!name}"
    done
}
pipes_partition_key() { _pipes_variables DAGSTER_SLURM_PARTITION_KEY; }
pipes_partition_range() { _pipes_variables DAGSTER_SLURM_PARTITION_RANGE_START DAGSTER_SLURM_PARTITION_RANGE_END; }
pipes_partition_window() { _pipes_variables DAGSTER_SLURM_PARTITION_START DAGSTER_SLURM_PARTITION_END; }
pipes_partition_keys() { # those of a range, or the one
    if [ -n "${DAGSTER_SLURM_PARTITION_KEYS_FILE-}" ]; then
        cat -- "$DAGSTER_SLURM_PARTITION_KEYS_FILE"
    else
        pipes_partition_key
    fi
}

pipes_listen() { trap '_pipes_asked=1' "${1:-USR1}"; } # [SIGNAL]: bash heeds it between two commands
pipes_asked() { [ -n "${_pipes_asked-}" ]; }
pipes_leave() { exit 75; } # not done yet
pipes_restart_count() { printf '%s\n' "${DAGSTER_SLURM_RESTART_COUNT:-0}"; }
pipes_folder() { mkdir -p -- "${DAGSTER_SLURM_CHECKPOINT:-checkpoint}" && printf '%s\n' "${DAGSTER_SLURM_CHECKPOINT:-checkpoint}"; }
pipes_save() { # NAME: stdin, whole or not at all
    local folder
    folder=$(pipes_folder) && cat >"$folder/.$1.$$" && mv -f -- "$folder/.$1.$$" "$folder/$1"
}
pipes_load() { # NAME: to stdout; 1 when nothing was saved
    local file=${DAGSTER_SLURM_CHECKPOINT:-checkpoint}/$1
    [ -e "$file" ] && cat -- "$file"
}

if [ -n "${DAGSTER_SLURM_MESSAGES-}" ]; then
    _pipes_send opened '{"extras": {}}'
    if [ -z "$(trap -p EXIT)" ]; then trap '_pipes_send closed "{}"' EXIT; fi
fi
