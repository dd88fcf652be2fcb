"""The scripts in ``base_model/`` are not a package: their folder goes on the import path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "base_model"))
