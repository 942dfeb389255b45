"""`python -m mmfuse` is `mmfuse`."""

import sys

from mmfuse.cli import main

sys.exit(main())
