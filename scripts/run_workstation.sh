#!/usr/bin/env bash
# Run a pipeline on this machine: what works here, which device it will be, the plan, the run.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/run_workstation.sh PIPELINE [options of `gpupipe run`]

    scripts/run_workstation.sh pipeline.yaml
    scripts/run_workstation.sh pipeline.yaml --runs /data/runs --json > result.json

Everything but the run's own output goes to stderr. Exit codes are those of gpupipe.
TEXT
}

case "${1:-}" in
    -h | --help) usage; exit 0 ;;
    "" | -*) usage >&2; exit 2 ;;
esac
pipeline=$1
shift

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gpupipe=$(command -v gpupipe || true)
[ -n "$gpupipe" ] || gpupipe=$root/.venv/bin/gpupipe
if [ ! -x "$gpupipe" ]; then
    echo "error: gpupipe is not installed: neither on PATH nor at $gpupipe" >&2
    echo "hint: python3 -m venv $root/.venv && $root/.venv/bin/pip install $root" >&2
    exit 5
fi

say() { printf '\n== %s\n' "$*" >&2; }

say "What works on this machine"
"$gpupipe" doctor >&2

# The devices that the driver shows; which of them gpupipe takes is in the plan's second line.
if gpus=$(nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader 2>/dev/null); then
    say "GPUs (CUDA_VISIBLE_DEVICES: ${CUDA_VISIBLE_DEVICES-all of them})"
    echo "$gpus" >&2
else
    say "No GPU answers: the CPU does the work"
fi

planned=() # what is for people needs no --json
for option in "$@"; do
    [ "$option" = --json ] || planned+=("$option")
done
say "The plan"
"$gpupipe" plan "$pipeline" ${planned[@]+"${planned[@]}"} >&2

say "The run"
exec "$gpupipe" run "$pipeline" "$@"
