"""`python -m ringmount.daemon`: the command `ringmount`."""

import sys

from ringmount.daemon.cli import main

sys.exit(main())
