"""The HTML report: what a manifest or release holds and what train-check found, on one page.

In: a manifest, or a release with its check if there is one. Out: one HTML file that requests nothing, and
the figures as SVG and PDF if wanted. Needs the extra `report` (Altair, vl-convert, Jinja2).

Reading order: `subject` (what is reported on, as data frames), `blocks` (what a page consists of), `charts`
(data frames to charts), `thumbnails`, the sections `overview`, `balance`, `ratings`, `check`, `images`, and
`page`, which assembles and writes them.
"""
