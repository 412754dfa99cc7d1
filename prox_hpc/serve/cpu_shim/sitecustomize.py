"""Lets torchvision from PyPI, built for CUDA, be imported beside a CPU-only torch (SGLang imports it on every device).

Its compiled operators cannot load here, and its Python part then stumbles over two of them that it expects to exist.
So their schemas are declared just before torchvision is first imported; calling them still fails. Python runs this
file at start-up in every process whose PYTHONPATH holds this folder: the CPU server's, and nobody else's.
"""

import importlib.abc
import os
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Finds nothing; notices the first import of torchvision."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch._prox_hpc_torchvision_library = library  # it declares only as long as it lives


if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
    sys.meta_path.insert(0, _DeclareOperators())
