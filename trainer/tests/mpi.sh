#!/usr/bin/env bash
# Trains a tiny model for 50 updates as one process, and again as several MPI processes in every layout, and compares the
# losses. Installs nothing: where there is no MPI it says so and passes. Usage: mpi.sh [safelmm-train, built with MPI]
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v mpirun >/dev/null || ! command -v mpicc >/dev/null; then
    echo "there is no mpirun or no mpicc (on Debian: libopenmpi-dev openmpi-bin libclang-dev): nothing was compared"
    exit 0
fi
train="${1:-${CARGO_TARGET_DIR:-target}/release/safelmm-train}"
[ $# -gt 0 ] || cargo build --release --workspace --bin safelmm-train --features safelmm-trainer/mpi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp trainer/tests/parallel.toml "$work/config.toml"
"$train" data --config "$work/config.toml" --corpora trainer/tests --out "$work/data"
# Several processes share this machine: each takes one thread, so that the single process does, too.
export RAYON_NUM_THREADS=1
run() { # NAME PROCESSES STEPS [FLAGS ...]
    local name=$1 processes=$2 steps=$3
    shift 3
    local command=("$train" pretrain --config "$work/config.toml" --data "$work/data" --out "$work/$name" "$@")
    command+=(--set "train.steps=$steps")
    if [ "$processes" = 1 ]; then "${command[@]}"; else
        mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$processes" "${command[@]}"
    fi 2>&1 | tail -n 1
}
losses() { sed 's/.*"loss":\([^,]*\),.*/\1/' "$work/$1/log.jsonl"; }
same() { # NAME TOLERANCE
    local lines
    lines=$(losses "$1" | wc -l)
    [ "$lines" = "$(losses one | wc -l)" ] || { echo "$1: $lines updates"; exit 1; }
    paste <(losses one) <(losses "$1") | awk -v name="$1" -v tolerance="$2" '
        { d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d }
        END { printf "%-12s %d updates, losses differ by at most %.2e\n", name, NR, most; exit most > tolerance }'
}

run one 1 50
for processes in 2 4; do
    run "dp-$processes" "$processes" 50
    same "dp-$processes" 0
    run "zero-$processes" "$processes" 50 --zero
    same "zero-$processes" 0
done
for layout in "tp-2 2 --tensor 2" "pp-2 2 --pipeline 2" "tp-2-pp-2 4 --tensor 2 --pipeline 2" \
    "dp-2-tp-2 4 --tensor 2 --zero" "dp-2-pp-2 4 --pipeline 2 --zero"; do
    read -r name processes flags <<<"$layout"
    # shellcheck disable=SC2086 # flags are words
    run "$name" "$processes" 50 $flags
    same "$name" 1e-5
done
