"""Stimulus sets: lists of images per cell of a design, matched between the cells; images to rate next.

In: the rows of a manifest and a request (`affectdata select --recipe SET.yaml`). Out: lists without overlap,
as a CSV file and a manifest, with the figures that show how well they are matched. No pixel is read.

Reading order: `request` (the keys of SET.yaml), `candidates` (the rows that may be selected, their cells and
the values to match), `program` (the integer program and its solution), `exchange` (improves a solution that
is not optimal), `feasible` (why a request cannot be met, and which can), `equivalence` (means, differences,
tests), `selection` (the whole). `suggestion` ranks unrated images by a kept model and by what the cells of a
recipe lack (`shortage`).
"""
