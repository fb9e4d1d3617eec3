#!/bin/bash
# Curates a pool on a Slurm cluster: many GPUs measure, one machine decides and emits.
#
#     examples/slurm/submit.sh web.yaml 128
#
# Task 3 of the array scores slice 3/128. `input:`, `store:` and `output:` lie on a filesystem that all nodes see, or on
# s3:// or gs://. Run it again after a failure: what is scored stays, and a task that has nothing to do ends in seconds.
set -euo pipefail
config=${1:?which config?} slices=${2:-128} at_once=${3:-32}
here=$(dirname "$0")

array=$(sbatch --parsable --array="0-$((slices - 1))%$at_once" "$here/score.sh" "$config" "$slices")
# Without a slice: what looks at the whole pool (duplicates, gates over shares of it), or nothing.
whole=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes "$here/score.sh" "$config")
sbatch --dependency="afterok:$whole" --kill-on-invalid-dep=yes "$here/curate.sh" "$config"
