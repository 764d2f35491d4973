#!/usr/bin/env bash
# Run a pipeline in a container: the RAPIDS image where a GPU can be reached, else the CPU image.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/run_container.sh [--data FOLDER]... PIPELINE [options of `gpupipe run`]

    scripts/run_container.sh churn/pipeline.yaml
    scripts/run_container.sh --data /data churn/pipeline.yaml --json

The pipeline's folder is mounted under its own path, and runs/ is written there, as the user who
calls. Data outside of that folder needs --data, which is mounted read-only.

CUDA=12 or CUDA=13 chooses the image's CUDA; left out, the driver's own is taken.
The image is built where it is missing. To build it again, remove it first.
TEXT
}

fail() { # code, message, hint
    printf 'error: %s\nhint: %s\n' "$2" "$3" >&2
    exit "$1"
}

options=()
while true; do
    case "${1:-}" in
        -h | --help) usage; exit 0 ;;
        --data)
            [ -d "${2:-}" ] || fail 2 "--data: there is no folder '${2:-}'" "name one that exists"
            folder=$(cd "$2" && pwd)
            options+=(--volume "$folder:$folder:ro")
            shift 2
            ;;
        "" | -*) usage >&2; exit 2 ;;
        *) break ;;
    esac
done
[ -f "$1" ] || fail 2 "there is no pipeline file '$1'" "\`gpupipe init TABLE\` writes one"
folder=$(cd "$(dirname "$1")" && pwd)
file=$(basename "$1")
shift

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
engine=$(command -v docker || command -v podman || true)
[ -n "$engine" ] || fail 5 "neither docker nor podman is installed" \
    "install one of them, or run without a container: scripts/run_workstation.sh $folder/$file"
"$engine" info >/dev/null 2>&1 || fail 5 "$engine is installed, but its engine does not answer" \
    "start it (\`sudo systemctl start docker\`), and join the group docker if it is not yours to use"

# What this engine calls the machine's GPUs: nothing where there are none that it can reach.
gpus=()
case "$(basename "$engine")" in
    docker)
        if [[ $("$engine" info --format '{{json .Runtimes}}') == *'"nvidia"'* ]] ||
            command -v nvidia-container-runtime-hook >/dev/null; then
            gpus=(--gpus all)
        fi
        ;;
    podman)
        if [ -e /etc/cdi/nvidia.yaml ] || [ -e /var/run/cdi/nvidia.yaml ]; then
            gpus=(--device nvidia.com/gpu=all)
        fi
        options+=(--security-opt label=disable) # SELinux would hide the mounted folders
        [ "$(id -u)" -eq 0 ] || options+=(--userns keep-id)
        ;;
esac
if ! driver=$(nvidia-smi 2>/dev/null); then
    gpus=()
    echo "device: cpu (no GPU answers to nvidia-smi)" >&2
elif [ ${#gpus[@]} -eq 0 ]; then
    echo "device: cpu (there is a GPU, but $engine cannot reach it: install the NVIDIA Container" \
        "Toolkit)" >&2
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/pyproject.toml")
if [ ${#gpus[@]} -gt 0 ]; then
    cuda=${CUDA:-$(sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' <<<"$driver")}
    [ "$cuda" = 12 ] || [ "$cuda" = 13 ] || cuda=13
    echo "device: cuda (CUDA $cuda)" >&2
    image=gpupipe:$version-cuda$cuda
    build=(--file "$root/docker/Dockerfile" --build-arg "CUDA=$cuda")
    # The base image keeps its packages for the group conda. NCCL needs more shared memory.
    gpus+=(--group-add conda --shm-size 1g)
else
    image=gpupipe:$version-cpu
    build=(--file "$root/docker/Dockerfile.cpu")
fi
if ! "$engine" image inspect "$image" >/dev/null 2>&1; then
    "$engine" build --tag "$image" "${build[@]}" "$root" >&2
fi

# Progress bars want a terminal, where there is one.
[ -t 0 ] && [ -t 1 ] && options+=(--interactive --tty)
exec "$engine" run --rm ${gpus[@]+"${gpus[@]}"} ${options[@]+"${options[@]}"} \
    --user "$(id -u):$(id -g)" --env HOME=/tmp \
    --volume "$folder:$folder" --workdir "$folder" \
    "$image" run "$file" "$@"
