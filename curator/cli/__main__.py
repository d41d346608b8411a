"""`python -m curator.cli`, the same as `curator`."""

from curator.cli import main

main()
