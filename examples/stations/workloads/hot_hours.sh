# Counts the hours that were warmer than $1, over all days that are there.
set -eu
. pipes.sh
hours=$(awk -F, -v limit="$1" 'FNR > 1 && $3 > limit' "$DATA_DIR"/clean/*.csv | wc -l)
pipes_materialize stations/hot_hours "hours=$hours" "celsius=$1"
