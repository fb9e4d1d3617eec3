#!/bin/bash
#SBATCH --job-name=chaffinch-curate
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
# Decides and emits, without a GPU. Not `chaffinch run`, which would score again what it finds measured on GPUs alone.
set -euo pipefail
config=${1:?which config?}
workers="run.workers=${SLURM_CPUS_PER_TASK:-16}"

chaffinch decide "$config" "$workers"
chaffinch emit "$config" "$workers"
chaffinch report "$config" "$workers"
