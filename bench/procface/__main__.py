"""`python -m bench.procface`."""

from bench.procface.cli import main

raise SystemExit(main())
