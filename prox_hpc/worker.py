"""`python -m prox_hpc.worker STEP.json INDEX`: run one task by hand; see `prox_hpc.cluster.worker`."""

import sys

from prox_hpc.cluster.worker import main

if __name__ == "__main__":
    sys.exit(main())
