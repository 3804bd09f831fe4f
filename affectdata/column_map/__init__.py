"""Sources that are described as data: a YAML file maps the columns of a table.

In: a column map and a source tree. Out: the same records, rejects and findings that a source module gives.

Read in this order:

columns   the column map as a model
read      the rows of a mapped table as records
packaged  the maps in `sources/maps`, with the interface of source modules
sample    a generated sample for a packaged map
"""
