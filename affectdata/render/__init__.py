"""Render planned images.

In: the rows of a plan and the source images. Out: encoded images, and how far copies differ from originals.

Read in this order:

render  decode, augment, resize, encode
drift   low-level features of rendered images, and a classifier that separates copies from originals

"""
