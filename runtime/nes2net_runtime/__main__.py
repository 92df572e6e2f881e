"""`python -m nes2net_runtime` is `nes2net-run`."""

from nes2net_runtime.cli import main

main()
