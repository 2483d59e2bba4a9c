"""The mapper: the best mapping of a layer in a stated space, with a certificate.

`mapspace` states the space, `optimal` walks its spatial splits. Compiled are `split_search` (one
split after the other), `tile_sizes`, `register_tiles` and `buffer_tiles` (what can win of each),
`tile_pairs` (the best of both), `problem` and `bounds` (what is asked for, and what no mapping can
go below). `orders` costs all loop orders of given tiles, `baselines` are other mappers to compare
with.
"""
