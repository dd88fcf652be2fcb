"""``python -m weitiao.cli``: the command line, for processes that weitiao starts itself."""

import sys

from weitiao.cli import main

sys.exit(main())
