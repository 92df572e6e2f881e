"""Arms in processes of their own that take turns: latency, throughput, memory, streams, roofline."""
