"""`python -m pyfacelat`."""

import sys

from pyfacelat.cli import main

sys.exit(main())
