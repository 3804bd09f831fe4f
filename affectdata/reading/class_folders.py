"""Class folders: which part of a path is the class and which the split, and whether that can be true.

In: the images of a tree. Out: class and split of each, findings about the layout, and an error where the
folders cannot be classes. Folders around the class folders (`data/images/`) are looked through.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from affectdata.errors import SourceError
from affectdata.labels import is_emotion
from affectdata.reading.names import spell_split
from affectdata.reading.tree import Paths
from affectdata.records import Finding, shorten

_WRAPPER = re.compile(r"(?i:data|datasets?|images?|imgs?|pictures|photos|raw|faces|output)")  # never a class
_CODE = re.compile(r"(?P<letters>[^\W\d_]*)[-_ .]?\d+([-_ .]?\d+)*")
_NUMBERED_CLASS = re.compile(r"class(es)?|label|emo(tion)?|cat(egory)?|expression|level|rating")
# Before the numbers of persons, sequences and parts of a download.
_NO_CLASS = re.compile(
    r"s|sbj|sub(j(ect)?)?|pp?|person|participant|actor|id|user|face|model"
    r"|seq(uence)?|video|vid|clip|session|take|trial|movie|scene|frame"
    r"|part|fold|batch|chunk|set|folder|shard|group|dir|vol"
)
_MOST = 0.8  # of the folders, for a statement about all
_MANY = 12  # folders with codes for names: more than there are classes
_SHORT = re.compile("[A-Z]{1,3}")  # KA, Sn: codes


@dataclass(frozen=True, slots=True)
class Place:
    """The class folder and split of an image; `split_below` says that the split is below the class."""

    word: str | None
    split: str | None
    split_below: bool = False


class ClassFolders:
    """The class folders of a tree with these images."""

    def __init__(self, images: Paths) -> None:
        self._images = images
        self._counts = {tuple(path.split("/")[:-1]): n for path, n in images.count_by_folder().items()}
        top = self._unwrap(())
        splits = {name for name in self._names_in(top) if spell_split(name)}
        self._tops = [*(self._unwrap((*top, name)) for name in sorted(splits)), top]  # the longest first
        self._places = {folders: self._place(folders, top) for folders in self._counts}
        self.classes = Counter[str]()  # images by class folder
        for folders, place in self._places.items():
            if place.word is not None:
                self.classes[place.word] += self._counts[folders]
        if len(self.classes) == 1 and _WRAPPER.fullmatch(next(iter(self.classes))):
            self.classes.clear()  # one folder called images: there are no class folders
            self._places = {folders: Place(None, place.split) for folders, place in self._places.items()}

    def place(self, path: str) -> Place:
        """Return the class and split of an image."""
        return self._places[tuple(path.split("/")[:-1])]

    @property
    def is_flat(self) -> bool:
        """Whether all images are directly in class folders, or in split folders below these."""
        below = [self._below(folders) for folders in self._counts]
        return all(below_class is not None and not below_class for below_class in below)

    def _names_in(self, folders: tuple[str, ...]) -> set[str]:
        """Return the folders in a folder that have images."""
        n = len(folders)
        return {each[n] for each in self._counts if len(each) > n and each[:n] == folders}

    def _unwrap(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """Go into a folder for as long as there is a single one, and it is neither a class nor a split."""
        while len(names := self._names_in(folders)) == 1:
            (name,) = names
            inner = (*folders, name)
            if spell_split(name) or is_emotion(name) or not self._names_in(inner):
                break
            if inner in self._counts and not _WRAPPER.fullmatch(name):
                break  # images directly in it, and folders: a class with folders inside
            folders = inner
        return folders

    def _place(self, folders: tuple[str, ...], top: tuple[str, ...]) -> Place:
        start = next((start for start in self._tops if folders[: len(start)] == start), None)
        split = next(filter(None, map(spell_split, folders[len(top) : len(top) + 1])), None)
        inner = folders[len(start) :] if start is not None and (start != top or not split) else ()
        if not inner:
            return Place(None, split)
        below = spell_split(inner[1]) if len(inner) > 1 and not split else None
        return Place(inner[0], split or below, below is not None)

    def _below(self, folders: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the folders between a class folder and its images, without a split; None without a class."""
        place = self._places[folders]
        if place.word is None:
            return None
        start = next(start for start in self._tops if folders[: len(start)] == start)
        return folders[len(start) + 1 + place.split_below :]

    @cached_property
    def _names_below(self) -> dict[str, set[str]]:
        """The names of the folders directly below each class."""
        names: dict[str, set[str]] = {word: set() for word in self.classes}
        for folders, place in self._places.items():
            below = self._below(folders)
            if place.word is not None and below:
                names[place.word].add(below[0])
        return names

    @property
    def _shared_below(self) -> list[str]:
        """The names of folders that are below most of the classes."""
        n_classes = Counter(name for names in self._names_below.values() for name in names)
        least = max(2, _MOST * len(self.classes))
        return sorted(name for name, n in n_classes.items() if n >= least)

    @property
    def _emotions_below(self) -> list[str]:
        """The emotions among the folder names below the classes, if most below one of these are emotions."""
        emotions = {
            word: {name for name in names if is_emotion(name)} for word, names in self._names_below.items()
        }
        is_certain = any(
            len(emotions[word]) >= max(2, _MOST * len(self._names_below[word])) for word in emotions
        )
        return sorted(set[str]().union(*emotions.values())) if is_certain else []

    def _first_images(self, of: str | None = None) -> list[str]:
        """Return an image of each class folder, or of one."""
        firsts = ((path, self.place(path).word) for path in self._images.one_per_folder())
        return [path for path, word in firsts if word is not None and of in (None, word)]

    def check(self, root: Path, beside: str = "") -> None:
        """Refuse folders that are persons, sequences or parts, and classes below other folders.

        `beside` says what else in the tree may have labels.

        Raises:
            SourceError: with the folders, and a column map that names the class in the path.
        """
        words, emotions_below = sorted(self.classes), self._emotions_below
        if self._are_codes and self._is_certain:
            what = "they look like persons, sequences or parts"
            pattern = "{person}/{emotion}/{image}" if any(self._names_below.values()) else self._fixed_width
            columns = "{emotion: emotion, subject_id: person}"
        elif emotions_below and not any(map(is_emotion, words)):
            what = f"folders with the names of emotions are below them: {shorten(emotions_below)}"
            pattern, columns = "{group}/{emotion}/{image}", "{emotion: emotion}"
        else:
            return
        raise SourceError(
            f"{root} has {len(words)} folders that cannot be classes: {shorten(words)}; {what}",
            where=shorten(self._first_images()) + beside,
            fix=f"describe the paths in a file columns.yaml, such as:\n    name: my_images\n"
            f'    file: "{pattern}"\n    columns: {columns}\n'
            f"  and ingest with --source table --map columns.yaml; if these folders are the classes: "
            '`file: "{emotion}/{image}"`',
        )

    @property
    def _are_codes(self) -> bool:
        """Whether most class folders are called like S01 or 0007."""
        return len(self._codes) >= max(2, _MOST * len(self.classes))

    @cached_property
    def _codes(self) -> dict[str, str]:
        """The letters before the number in the names of class folders, lower case."""
        matches = {word: _CODE.fullmatch(word) for word in self.classes if not is_emotion(word)}
        letters = {word: match["letters"].lower() for word, match in matches.items() if match}
        return {word: each for word, each in letters.items() if not _NUMBERED_CLASS.fullmatch(each)}

    @property
    def _is_certain(self) -> bool:
        """Whether there is more evidence than codes for names."""
        before = set(self._codes.values())
        if all(map(_NO_CLASS.fullmatch, before)) or self._shared_below or len(self._codes) >= _MANY:
            return True
        return bool(before - {""}) and self._named_after_folders

    @property
    def _named_after_folders(self) -> bool:
        """Whether the names of images start with that of their class folder, as AF01/AF01ANHL.JPG."""
        firsts = self._first_images()
        n_named = sum(
            PurePosixPath(path).name.lower().startswith(str(self.place(path).word).lower()) for path in firsts
        )
        return n_named >= _MOST * len(firsts)

    @property
    def _fixed_width(self) -> str:
        widths = {len(word) for word in self._codes}
        if len(widths) == 1 and self._named_after_folders:
            return f"{{person:{widths.pop()}}}{{emotion:2}}{{view}}"
        return "{person}_{emotion}_{number}"

    def findings(self) -> Iterator[Finding]:
        """Yield what is unusual in the layout."""
        words, n_images = sorted(self.classes), sum(self.classes.values())
        firsts = self._first_images()
        if len(words) == 1:
            text = f"there is only one class, {words[0]} (images: {n_images}): {shorten(firsts)}"
            yield Finding("single_class", text)
        elif self._are_codes or all(map(_SHORT.fullmatch, words)):
            text = f"{len(words)} classes have codes for names: {shorten(words)}; a column map "
            yield Finding("coded_classes", text + 'with file: "{emotion}/{image}" and `values` names them')
        below = {folders: place for folders, place in self._places.items() if place.split_below}
        if below:
            n, examples = sum(self._counts[folders] for folders in below), ["/".join(each) for each in below]
            text = f"split from a folder below the class (images: {n}): {shorten(sorted(examples))}"
            yield Finding("split_below_class", text)
        if shared := self._shared_below:
            text = f"the same folder names are below each of the {len(words)} classes: {shorten(shared)}; "
            yield Finding("same_names_below", text + "if they are persons, or the classes, use a column map")
