"""The cost model: what one mapping of one layer moves, takes and costs. Each equation is numbered in docs/accelerator.md.

`counts` holds the closed form, `energy_latency` what follows from it on a chip, `simd` the same for sixteen mappings at
once, `stall` and `halo` two refinements, `cost` the interface: one mapping, or an array of them.
"""
