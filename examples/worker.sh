#!/usr/bin/env bash
# Sets up a machine on which a cluster's workers run Chaffinch, and starts a pool of them: what a container's image would
# hold, as steps that run anywhere. On every machine, with the same checkout, weights and Python:
#
#     examples/worker.sh install            a virtual environment with the versions of constraints.txt
#     examples/worker.sh weights FILE       checks weights against a list of digests, as `sha256sum FILES > FILE` makes it
#     examples/worker.sh start              a worker pool on $PORT, until it is killed
#     examples/worker.sh run COMMAND ...    anything else in the same environment: a Slurm task, `chaffinch score`, or a
#                                           TaskManager of Flink, which then starts workers by itself and needs no pool
#
# Then, where the job is launched: `chaffinch doctor CONFIG`.
#
# Set what differs from the defaults in the environment:
#   HOME_OF_WORKERS  where the environment is                                (default: ~/.chaffinch-worker)
#   SOURCE           what pip installs: a checkout, a wheel, chaffinch==...  (default: the checkout of this script)
#   PYTHON           the interpreter; its version is that of the launching machine          (default: python3)
#   WORKERS          processes that will work on this machine at once       (default: one a GPU, one without any)
#   THREADS          of each of them                                        (default: cores / WORKERS)
#   PORT             of the worker pool                                     (default: 50000)
#   ONLINE           1 lets models be fetched from the hub; else only files and what is in its cache are used
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${HOME_OF_WORKERS:-$HOME/.chaffinch-worker}
venv=$home/venv

fail() {
    echo "worker.sh: $*" >&2
    exit 1
}

install() {
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' ||
        fail "$("$python" --version) will not do: name a Python 3.11 or 3.12 in PYTHON, the same as where jobs are launched"
    mkdir -p "$home"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --constraint "$here/constraints.txt" "${SOURCE:-$here}"
    "$venv/bin/chaffinch" kinds captions >/dev/null || fail "$venv/bin/chaffinch does not run"
    echo "installed: $("$venv/bin/python" -c 'from importlib.metadata import version as v; print("chaffinch", v("chaffinch"))')"
}

weights() {
    [ $# = 1 ] || fail "weights wants one file: a list of digests"
    # Paths in the list are relative to the folder that it is in.
    (cd "$(dirname "$1")" && sha256sum --check --quiet "$(basename "$1")") ||
        fail "weights of $1 are missing or others: copy them here from where the job is launched"
    echo "weights: $(wc -l <"$1") files are as listed"
}

# What every process of this machine gets, however it is started.
environment() {
    [ -x "$venv/bin/chaffinch" ] || fail "nothing is installed in $venv: worker.sh install"
    local cores gpus
    cores=$(nproc)
    gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
    local workers=${WORKERS:-$((gpus > 1 ? gpus : 1))}
    local threads=${THREADS:-$((cores / workers))}
    export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
    if [ "${ONLINE:-}" != 1 ]; then
        export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
    fi
    # First on PATH: Beam's pool starts plain `python`, and TaskManagers start `chaffinch-worker`.
    export PATH=$venv/bin:$PATH
}

start() {
    environment
    # The pool never reads what its workers print, who would wait for it at some time.
    local worker=$home/pooled-worker
    printf '#!/bin/sh\nexec "%s" "$@" >&2\n' "$venv/bin/chaffinch-worker" >"$worker.$$"
    chmod +x "$worker.$$" && mv "$worker.$$" "$worker"
    echo "worker pool on port ${PORT:-50000}, $OMP_NUM_THREADS threads a worker" >&2
    exec python -m apache_beam.runners.worker.worker_pool_main --service_port="${PORT:-50000}" \
        --container_executable="$worker"
}

run() {
    [ $# -gt 0 ] || fail "run wants a command"
    environment
    exec "$@"
}

case ${1:-} in
    install | weights | start | run) "$@" ;;
    *) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
