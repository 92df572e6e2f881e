"""Torch modules of the detectors, loadable from official state dicts."""
