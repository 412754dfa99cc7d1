"""Makes the tools importable: fuzzing and these tests check the same promises, and share the oracle."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tools"))
