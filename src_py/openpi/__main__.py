"""`python -m openpi` is the command `openpi`."""

from openpi.cli.main import main

main()
