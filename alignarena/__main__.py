"""``python -m alignarena``."""

import sys

from alignarena.cli import main

sys.exit(main())
