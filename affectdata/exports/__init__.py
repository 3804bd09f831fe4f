"""Export a release to the formats of other programs; each module without a leading underscore is one format.

In: a valid release. Out: a folder in the format.

Read `_job` (the interface of a format) and `_write` (the checks, and writing the folder) first.
"""
