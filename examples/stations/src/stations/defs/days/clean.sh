# Leaves out what a broken sensor sent.
set -eu
. pipes.sh
raw=$DATA_DIR/raw/$1.csv
clean=$DATA_DIR/clean/$1.csv
mkdir -p "$DATA_DIR/clean"
awk -F, 'NR == 1 || $3 > -100' "$raw" >"$clean.part"
mv "$clean.part" "$clean"
rows=$(($(wc -l <"$clean") - 1))
faults=$(($(wc -l <"$raw") - 1 - rows))
pipes_log "$faults values are left out"
pipes_check stations/clean few_faults "$([ $((faults * 5)) -lt "$rows" ] && echo true || echo false)" "faults=$faults"
pipes_materialize stations/clean "rows=$rows" "faults=$faults"
