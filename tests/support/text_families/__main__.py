"""Prints docs/families.md: `make families`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from text_families.sweep import table

print(table(), end="")
