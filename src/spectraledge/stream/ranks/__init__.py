"""One run on several ranks: who holds which entries, who counts them, and sums over ranks.

Inner products add over disjoint sets of entries, so a sharded run needs every entry counted on exactly one rank, and
one sum of a few kB over ranks a snapshot.
"""
