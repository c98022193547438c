"""`python -m minicircuits` is the command line."""

import sys

from minicircuits.cli import main

sys.exit(main())
