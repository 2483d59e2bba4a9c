"""Networks that grow and keep what they compute: morphs of Pliant's networks and of any module."""
