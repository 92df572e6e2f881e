"""Labelled audio: protocols, metrics, score calibration."""
