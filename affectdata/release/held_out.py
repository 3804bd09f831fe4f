"""The ledger of a release: images that its line of releases held out, and that are not in its rows as such.

A line is a manifest with its ledger, and the releases that `--split-from` leads back to. The file is hidden,
as loaders that collect the Parquet files of a folder would take its rows for those of the release. A release
without such images has none. Its hash is `ledger_sha256` of release.json, which former releases lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.manifest.ledger import merge_splits, read_ledger_file, splits_of
from affectdata.release.release import LEDGER_FILE, Release
from affectdata.schema import LEDGER
from affectdata.store.files import hash_file
from affectdata.store.text_set import StringHashSet

_SAME = {
    "image_id": "is in train, and an earlier release or its manifest held it out",
    "pixel_id": "is in train, and has the pixels of an image that was held out earlier",
    "group_id": "is in train, and in the group of an image that was held out earlier",
}


def read_held_out(release: Release) -> pa.Table:
    """Return the ledger of a release; empty if it has none.

    Raises:
        IntegrityError: the file is not the one that was published.
    """
    expected, path = release.info.get("ledger_sha256"), release.path / LEDGER_FILE
    if expected is None:
        return LEDGER.empty_table()
    try:
        if hash_file(path) == expected:
            return read_ledger_file(path)
        problem = f"{LEDGER_FILE} differs from the published file"
    except FileNotFoundError:
        problem = f"{LEDGER_FILE} does not exist"
    except OSError as error:
        problem = f"{LEDGER_FILE} cannot be read: {error.strerror}"
    except ManifestError as error:
        problem = f"{LEDGER_FILE}: {error.what}"
    raise IntegrityError(problem, where=str(release.path), fix="restore the file: it has the earlier splits")


def earlier_splits(release: Release, columns: Iterable[str]) -> pa.Table:
    """Return the splits of a release and those that it remembers, with the `columns` of groups that it has.

    Raises:
        IntegrityError: the ledger is not the one that was published.
    """
    return merge_splits([splits_of(release.table, columns), read_held_out(release)])


class HeldOut:
    """Finds images in train that are in a ledger: the same image, pixels or group."""

    def __init__(self, ledger: pa.Table) -> None:
        self.ledger = ledger
        self._known = {name: StringHashSet([ledger[name].to_pylist()]) for name in _SAME}

    def find(self, images: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield messages, and the keys of those original rows that they apply to."""
        if not len(self.ledger):
            return
        train = images.filter(pc.fill_null(pc.equal(images["split"], "train"), False))
        for name, message in _SAME.items():
            is_known = self._known[name].has(train[name].fill_null("").to_pylist())
            yield message, train["sample_id"].filter(pa.array(is_known))
