"""Read, decode, hash and compare images.

In: an untrusted file. Out: its bytes, upright sRGB pixels, hashes, and the groups of duplicate images.

Read in this order:

read        the bytes of an image: a file, or a row of a table that holds pixels
decode      untrusted bytes to pixels; resize and encode
phash       hashes of the pixels (exact) and of their appearance (perceptual)
probe       read, decode and hash one file; a damaged file is a result, not an exception
hamming     pairs of 64-bit hashes within a distance
duplicates  edges between images, and their groups
"""
