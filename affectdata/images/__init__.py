"""One image, and images compared: bytes, pixels, hashes, duplicates.

In: a file of unknown quality. Out: its bytes, upright sRGB pixels, hashes, and which images belong together.

Read in this order:

read        the bytes of an image: a file, or a row of a table that holds pixels
decode      untrusted bytes to pixels; resize and encode
phash       hashes of the pixels and of what they look like
probe       read, decode and hash one file; damage is a result, not an exception
hamming     pairs of 64-bit hashes within a distance
duplicates  edges between images, and their groups
"""
