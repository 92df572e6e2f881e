"""What `nes2net-run --mic` does with a stream: the loop, the view, records, recordings, reports, commands."""
