"""The mapper: the best mapping of a layer in a stated space, with a certificate.

`mapspace` states the space, `search` walks its spatial splits, `split_search` and `bounds` are the
compiled inner part, `orders` costs all loop orders of given tiles, `baselines` are other mappers to
compare with.
"""
