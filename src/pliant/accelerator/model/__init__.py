"""The cost model: what one mapping of one layer moves, and its energy and latency.

`counts` is the closed form, `energy_latency` what follows from it on a chip, `simd` both for
sixteen mappings at once, `stall` and `halo` two refinements, `tiles` the words of a tile in plain
Python, and `cost` the interface: one mapping, or an array of them. docs/accelerator.md numbers the
equations.
"""
