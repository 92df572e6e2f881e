"""Lists of labelled trials, as the public data sets publish them: found by content, one record type."""

from nes2net_calib.protocols.reader import read_protocol
from nes2net_calib.protocols.records import Protocol, Trial

__all__ = ["Protocol", "Trial", "read_protocol"]
