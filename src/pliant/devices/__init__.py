"""Latency of networks on real machines: measured, stored in profiles, predicted from tables."""
