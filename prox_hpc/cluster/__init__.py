"""Where steps run: this machine or Slurm; `worker` is the one function a task runs."""
