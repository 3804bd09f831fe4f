"""Building blocks for reading sources.

In: a folder or an archive as its owners ship it. Out: a safe list of files, tables as text cells, and rating
rows joined with their images. Authors of sources import from here.

Read in this order:

protocol   what a source module offers, the types that it uses, and calls into it
tree       the files of a source, listed safely
archives   a .zip or .tar file, unpacked once
delimited  delimited text, and numbers in text
tables     a rating table in any container
names      normalised names of files and splits
join       rating rows joined with their images
indexes    the files that a source is known to contain
sample     images for generated samples
"""
