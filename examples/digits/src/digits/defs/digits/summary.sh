#!/usr/bin/env bash
# Write a short report on the evaluation: a payload needs no Python to speak with Dagster.
# Runs by hand too: DATA_DIR=/tmp/digits PATH=$PATH:$(dg-slurm lib) bash summary.sh (after evaluate.py)
set -euo pipefail
# shellcheck source=/dev/null # every job has it
. pipes.sh

evaluation="$DATA_DIR/evaluation.csv"
report="$DATA_DIR/report.md"
{
    printf '# Digits, one by one\n\n| digit | images | recognised |\n|---|---|---|\n'
    awk -F, 'NR > 1 { printf "| %d | %d | %.1f %% |\n", $1, $2, 100 * $3 / $2 }' "$evaluation"
} >"$report"

numbers=$(awk -F, '
    NR > 1 { images += $2; errors += $2 - $3; rate = $3 / $2 }
    NR == 2 || NR > 2 && rate < lowest { lowest = rate; hardest = $1 }
    END { print images, errors, hardest }' "$evaluation")
read -r images errors hardest <<<"$numbers"

pipes_log "the hardest digit is $hardest"
pipes_materialize digits/report "images=$images" "errors=$errors" "hardest_digit=$hardest" "file=$report"
