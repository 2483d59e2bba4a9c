"""Pliant: hardware-aware neural architecture search, from labelled images to a measured network."""

__version__ = "0.1.0"
