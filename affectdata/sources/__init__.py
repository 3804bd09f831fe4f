"""Collections: each module here, and each column map in `maps/`, is one source.

In: the tree of a collection as its owners ship it. Out: records, rejects, annotations and findings.

Read `reading.protocol` first, then `gaped` as an example.
"""
