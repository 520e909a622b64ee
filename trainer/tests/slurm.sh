#!/usr/bin/env bash
# On a real SLURM: a run that is cut into jobs, by a chain or by the time limit, ends with the losses of an uncut one.
# usage: slurm.sh [SAFELMM-TRAIN [DIR]]    DIR: a folder that the nodes see too
# Takes the SLURM that answers, or one of this machine alone where its daemons are installed (slurm-node.sh, as root).
# Says so and passes where there is neither. A few minutes, most of which is SLURM's shortest time limit.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
train=$(realpath "${1:-$here/../../target/release/safelmm-train}")
dir=$(mktemp -d -p "${2:-${TMPDIR:-/tmp}}" safelmm-slurm.XXXXXX)
node=
clean() {
    if [ -n "$node" ]; then "$here/slurm-node.sh" stop "$dir/node"; fi
    rm -rf "$dir"
}
trap clean EXIT
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; tail -n 30 "$dir"/*/slurm/*.log >&2 || true; exit 1; }

if ! sinfo --noheader >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! { hash slurmctld slurmd munged; } 2>/dev/null; then
        say "skipped: no SLURM answers here, and there are no daemons of it that root could start"
        exit 0
    fi
    node=1
    "$here/slurm-node.sh" start "$dir/node"
    export SLURM_CONF="$dir/node/slurm.conf"
fi
say "$(sinfo --version), $(sinfo --noheader --format='%D nodes' | head -n 1)"

cat > "$dir/train.toml" <<'END'
name = "slurm-test"
seed = 7
[model]
hidden_size = 32
intermediate_size = 48
layers = 2
heads = 2
kv_heads = 1
head_dim = 16
context = 384
rope_theta = 10000.0
[tokenizer]
vocab_size = 700
bytes_per_language = 100000
english_bytes = 100000
[data]
heldout = 0.2
untagged = 0.1
source = []
[data.stories]
per_rating = 8
dialogues_per_rating = 2
[train]
steps = 300
batch_tokens = 800
micro_batch_tokens = 400
learning_rate = 2e-3
final_learning_rate = 0.1
warmup_steps = 10
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.95
clip_norm = 1.0
z_loss = 1e-4
checkpoint_steps = 50
eval_steps = 100
END
cd "$dir"
"$train" data --config train.toml --corpora . --out data 2>/dev/null
# The training of so many updates in this folder, as a command line.
training() { printf '%s\n' pretrain --config train.toml --data data --out "$1" --set "train.steps=$2"; }
uncut() { mapfile -t command < <(training "$1" "$2"); "$train" "${command[@]}" 2>/dev/null; }
submit() { # RUN STEPS OPTION...: the numbers of the jobs
    mapfile -t command < <(training "$1" "$2")
    "$train" submit --cpus-per-task 1 "${@:3}" -- "${command[@]}"
    mapfile -t jobs < "$1/slurm/jobs"
}
lines() { { cat "$1/log.jsonl" 2>/dev/null || true; } | wc -l; }
state() { squeue --noheader --states=all --jobs="$1" --format=%T 2>/dev/null || true; }
# What must be the same: everything of a line but times and memory.
same() {
    for run in "$1" "$2"; do
        sed -E 's/"tokens_per_second".*"peak_memory_bytes":[0-9]+(,"mfu":[0-9.e-]+)?//' "$run/log.jsonl" > "$run.losses"
    done
    [ "$(wc -l < "$1.losses")" = "$3" ] || fail "$1 has $(wc -l < "$1.losses") updates, expected $3"
    cmp "$1.losses" "$2.losses" || fail "$1 and $2 saw other losses"
}

say "a chain of three jobs, of which two are cut by the signal"
uncut whole 300
submit chain 300 --jobs 3 --time 10
for job in "${jobs[@]:0:2}"; do
    seen=$(lines chain)
    for _ in $(seq 6000); do
        if [ "$(lines chain)" -gt $((seen + 20)) ]; then break; fi
        sleep 0.02
    done
    scancel --batch --signal=USR1 "$job"
    for _ in $(seq 600); do
        if [ "$(state "$job")" = COMPLETED ]; then break; fi
        sleep 0.1
    done
    grep -q 'stopped at step' "chain/slurm/$job.log" || fail "job $job was not cut: $(state "$job")"
done
for _ in $(seq 1200); do
    if [ "$(state "${jobs[2]}")" = COMPLETED ]; then break; fi
    sleep 0.1
done
grep -q '^finished' "chain/slurm/${jobs[2]}.log" || fail "the last job did not end the run: $(state "${jobs[2]}")"
same chain whole 300
say "passed: $(grep -ho 'stopped at step [0-9]*' chain/slurm/*.log | tr '\n' ',') and the same 300 losses"

say "a fourth job finds the run finished"
submit chain 300 --time 10
for _ in $(seq 600); do
    if [ "$(state "${jobs[0]}")" = COMPLETED ]; then break; fi
    sleep 0.1
done
grep -q '^finished before' "chain/slurm/${jobs[0]}.log" || fail "it did not end at once: $(state "${jobs[0]}")"

say "one job that meets its time limit of a minute and queues itself again"
# As many updates as take a minute if all were as fast as the fastest; SLURM looks at its clock every half minute.
steps=$(sed -nE 's/.*"step_seconds":([0-9.]+).*/\1/p' whole/log.jsonl | sort -g | awk 'NR == 1 { printf "%d", 60 / $1 }')
uncut long "$steps"
submit again "$steps" --time 1 --signal-seconds 50
for _ in $(seq 3600); do
    case $(state "${jobs[0]}") in
    COMPLETED) break ;;
    # SLURM lets two minutes pass before it starts a requeued job.
    PENDING) scontrol update JobId="${jobs[0]}" StartTime=now 2>/dev/null || true ;;
    esac
    sleep 0.5
done
restarts=$(scontrol show job "${jobs[0]}" | sed -nE 's/.*Restarts=([0-9]+).*/\1/p')
[ "$restarts" -ge 1 ] || fail "the time limit cut nothing: restarts $restarts, $(state "${jobs[0]}")"
same again long "$steps"
cuts=$(grep -ho 'stopped at step [0-9]*' again/slurm/*.log | tr '\n' ',')
say "passed: $restarts restarts ($cuts) and the same $steps losses"
