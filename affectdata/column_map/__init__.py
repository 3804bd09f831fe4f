"""Sources that are described as data: a YAML file says what the columns of a table mean.

In: a column map and a source tree. Out: the same records, rejects and findings that a source module gives.

Read in this order:

columns   the column map as a model
read      the rows of a mapped table as records
packaged  the maps in `sources/maps`, each offered as a source module is
sample    a generated sample for a packaged map
"""
