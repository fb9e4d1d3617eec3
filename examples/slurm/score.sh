#!/bin/bash
#SBATCH --job-name=chaffinch-score
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
# Scores one slice in a task of an array, else what is left. Two slices that failed are run again by
#     sbatch --array=3,17 examples/slurm/score.sh web.yaml 128
# and so the number of slices is given, not asked of Slurm: SLURM_ARRAY_TASK_COUNT would be 2.
set -euo pipefail
config=${1:?which config?}

if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    exec chaffinch score "$config" run.slice="$SLURM_ARRAY_TASK_ID/${2:?how many slices?}"
fi
exec chaffinch score "$config"
