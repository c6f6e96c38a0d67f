# shellcheck shell=bash
# Report to Dagster from a shell payload: source this file, then call pipes_log and pipes_materialize.
# A message is one line of JSON in the file that the job names; outside of a job the lines go nowhere.
# Each line is written by one printf, so lines of several processes don't mix.

pipes_send() { # METHOD PARAMS-AS-JSON
    printf '{"__dagster_pipes_version": "0.1", "method": "%s", "params": %s}\n' "$1" "$2" \
        >>"${DAGSTER_SLURM_MESSAGES:-/dev/null}"
}

json_string() { # TEXT
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\t'/\\t}
    printf '"%s"' "${text//[[:cntrl:]]/ }"
}

pipes_log() { # TEXT
    pipes_send log "{\"message\": $(json_string "$1"), \"level\": \"INFO\"}"
}

pipes_materialize() { # ASSET-KEY [NAME=VALUE...]
    local asset=$1 metadata="" pair value
    shift
    for pair in "$@"; do
        value=${pair#*=}
        [[ $value =~ ^-?(0|[1-9][0-9]*)(\.[0-9]+)?$ ]] || value=$(json_string "$value")
        metadata+="${metadata:+, }$(json_string "${pair%%=*}"): {\"raw_value\": $value, \"type\": \"__infer__\"}"
    done
    pipes_send report_asset_materialization \
        "{\"asset_key\": $(json_string "$asset"), \"data_version\": null, \"metadata\": {$metadata}}"
}

pipes_send opened '{"extras": {}}'
trap 'pipes_send closed "{}"' EXIT
