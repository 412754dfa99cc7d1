"""prox_hpc: ProX (programming every example) from a raw corpus to the FLOPs saved, on Slurm or on one machine."""

__version__ = "0.1.0"
