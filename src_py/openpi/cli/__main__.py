"""`python -m openpi.cli` is `openpi`."""

from openpi.cli.main import main

main()
