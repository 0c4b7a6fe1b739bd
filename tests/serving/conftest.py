"""Lets the tests of this folder import `serving_peers`, which lies beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
