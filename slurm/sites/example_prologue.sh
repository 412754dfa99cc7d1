#!/usr/bin/env bash
# A site's prologue: what every job of a study does before its tasks start. Copy it, edit it, and name the copy in the
# cluster profile (conf/cluster/mysite.yaml, which starts from `slurm`):
#
#     setup:
#       - source /shared/project/mysite_prologue.sh
#
# The setup lines go into the batch script ahead of `srun`. They therefore run ONCE PER JOB, on its first node; what they
# export reaches the tasks on all nodes, but a folder made here exists on the first node only (see step 2).
# The batch script has no `set -e`: a line that fails is not noticed, so guard what must hold with `|| exit 1`; the job is
# then FAILED and what depends on it does not start. Keep secrets out: batch scripts and logs are often readable by others.

umask 077

# --- 1. software. Modules only where the site has them; `purge` first: the login shell's modules come along with the job.
if command -v module >/dev/null 2>&1; then
    module purge
    module load gcc cuda apptainer || exit 1
fi
# The Python that runs the tasks is the one that ran `launch` (an absolute path, on the shared filesystem): no activation
# here. What must go is what would leak into it:
unset PYTHONPATH PYTHONHOME

# --- 2. scratch. Node-local and ours alone; many sites set SLURM_TMPDIR and clean it up, otherwise a folder under /tmp.
export TMPDIR="${SLURM_TMPDIR:-/tmp/prox-${SLURM_JOB_ID:-0}}"
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
    srun --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" mkdir -p "$TMPDIR" || exit 1
else
    mkdir -p "$TMPDIR" || exit 1
fi
# Compilers' caches: many tasks writing to one in $HOME is what breaks on Lustre and fills quotas.
export TRITON_CACHE_DIR="$TMPDIR/triton" TORCHINDUCTOR_CACHE_DIR="$TMPDIR/inductor" TORCH_EXTENSIONS_DIR="$TMPDIR/torch_extensions"

# --- 3. models and data. Compute nodes rarely reach the internet, and thousands of tasks must not try:
# fill the cache once on the login node (`hf download ORG/MODEL`), then only read.
export HF_HOME="${HF_HOME:-/shared/project/hf}"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
# A proxy from the login shell would come between the tasks and their own server on 127.0.0.1.
export no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}"
export NO_PROXY="$no_proxy"

# --- 4. cores. One thread pool as wide as the allocation, not as the node.
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}" TOKENIZERS_PARALLELISM=false

# --- 5. network of multi-node training: the fast interface, if NCCL does not find it (`ip -br addr` on a node tells).
# export NCCL_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5

# --- 6. SGLang from a container, since its pins clash with the trainer's. The refiner's configuration then names the
# server's command (`apptainer exec --nv /shared/project/sglang.sif python3`); what it needs from here:
# export APPTAINER_CACHEDIR="$TMPDIR/apptainer"                # not $HOME/.apptainer: quota
# export APPTAINER_BIND="$HF_HOME,$TMPDIR,/shared/project"     # models, scratch, the study's folder
# Build or pull the .sif once on the login node; `apptainer pull` inside an array pulls it once a task.
