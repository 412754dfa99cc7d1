"""prox_hpc: ProX (programming every example) at scale, from a raw corpus to the FLOPs saved, on a Slurm cluster or one machine."""

__version__ = "0.1.0"
