"""`python -m nes2net_export` is `nes2net-export`."""

from nes2net_export.cli import main

main()
