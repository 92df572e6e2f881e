"""Audio that comes in pieces: sources, the ring of recent samples, voice activity, scores and alerts."""
