"""Tables on disk, written whole or not at all.

In: Arrow tables, or rows one by one. Out: Parquet files that are checked when read, and temporary files that
keep memory bounded.

Read in this order:

files     regular files only: a FIFO would never end
listing   files and folders under a folder
atomic    replace files and lock folders
chunks    rows in chunks of a given size
digest    hash of the logical rows of a table
parquet   write and read tables
escape    text for spreadsheets, Markdown and names of folders
spill     rows on disk while a job runs
text_set  a set of strings as 64-bit hashes
by_image  the rows of a release, image by image
"""
