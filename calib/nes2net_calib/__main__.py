"""`python -m nes2net_calib` is `nes2net-calib`."""

from nes2net_calib.cli import main

main()
