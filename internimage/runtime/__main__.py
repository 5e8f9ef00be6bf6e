"""``python -m internimage.runtime``."""

import sys

from internimage.runtime.command import main

sys.exit(main())
