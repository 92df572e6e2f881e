"""Measurements: MACs, latency, memory, EER drift."""
