"""A release in the formats of other programs: each module without a leading underscore is one format.

In: a sound release. Out: a folder that the other program reads.

Read `_job` (what a format gets and offers) and `_write` (checks, then the folder as a whole) first.
"""
