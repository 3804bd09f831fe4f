"""Planned images as pixels.

In: the rows of a plan and the source images. Out: encoded images, and how far copies differ from originals.

Read in this order:

render  decode, augment, resize, encode
drift   features of what was rendered, and a probe that tells copies from originals
"""
