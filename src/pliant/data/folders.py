"""Folders of pictures: one folder for each class, also below a folder for each split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pliant.data.decoding import ENDINGS
from pliant.data.pictures import EncodedPicture, EncodedPictures, Pictures
from pliant.data.source import Source, make_source
from pliant.data.split_names import AUTOMATIC, NONE, SplitName, find_splits, parse_splits
from pliant.errors import DataError


def read_folder(folder: Path, splits: str = AUTOMATIC) -> Source:
    """Pictures in a folder for each class, or in folders for each split above the class folders.

    Args:
        folder: of the data set. Where it holds nothing but one folder, that one is meant.
        splits: `auto` to recognise split folders by their names, `none` where every folder is a
            class, or `train=NAME,validation=NAME,test=NAME`.

    Raises:
        DataError: no class folders, a class without pictures, folders beside those of the splits,
            or folders that look like splits whose names are not known.
    """
    name, notes = folder.resolve().name, []
    folder = _below_wrappers(folder)
    split_folders = _split_folders(folder, splits)
    if split_folders is None:
        split_folders = {"train": folder}
    else:
        recognised = ", ".join(f"{path.name} as {split}" for split, path in split_folders.items())
        notes.append(f"Folders read as splits: {recognised}. Another reading: splits.")
    pictures: dict[SplitName, Pictures] = {}
    labels: dict[SplitName, NDArray] = {}
    others: list[Path] = []
    for split, path in split_folders.items():
        files, ignored = _class_files(_below_wrappers(path))
        others += ignored
        paths = [file for found in files.values() for file in found]
        pictures[split] = path_pictures(paths)
        counts = [len(found) for found in files.values()]
        labels[split] = np.repeat(np.array(list(files), np.str_), counts)
    if others:
        notes.append(_note_of_others(others, folder))
    return make_source(name, pictures, labels, None, tuple(notes))


def path_pictures(paths: Sequence[Path]) -> EncodedPictures:
    """Pictures of these files."""

    def items() -> Iterator[EncodedPicture]:
        for path in paths:
            yield EncodedPicture(printable(path), path)

    return EncodedPictures(len(paths), items)


def printable(path: Path) -> str:
    """A path as text that every terminal and file takes, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _folders(folder: Path) -> list[Path]:
    """Folders inside a folder, by name, without those that systems and archives leave behind."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as fault:
        raise _unreadable(fault) from fault
    return [one for one in inside if one.is_dir() and not one.name.startswith((".", "__"))]


def _unreadable(fault: OSError) -> DataError:
    name = os.fsencode(fault.filename or "").decode("utf-8", "backslashreplace")
    return DataError(
        f"a folder of images can be listed; {name} cannot: {fault.strerror}. Change its "
        "permissions."
    )


def _below_wrappers(folder: Path) -> Path:
    """The folder itself, or the one inside where it wraps nothing but folders of folders."""
    while True:
        inside = _folders(folder)
        if len(inside) != 1 or not _folders(inside[0]) or _has_pictures(folder):
            return folder
        folder = inside[0]


def _has_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in ENDINGS for file in folder.iterdir() if file.is_file())


def _split_folders(folder: Path, splits: str) -> dict[SplitName, Path] | None:
    """The folder of each split, or None where every folder is a class."""
    inside = _folders(folder)
    if splits == NONE:
        return None
    if splits != AUTOMATIC:
        chosen = parse_splits(splits, [one.name for one in inside], printable(folder))
        return {split: folder / name for split, name in chosen.items()}
    # A folder without folders is a class, whatever its name: one may well be called "train".
    nested = [one.name for one in inside if _folders(one)]
    found = {
        split: folder / names[0] for split, names in find_splits(nested, printable(folder)).items()
    }
    if "train" not in found:
        _require_no_hidden_splits(folder, inside)
        return None
    strange = [printable(Path(one.name)) for one in inside if one not in found.values()]
    if strange:
        raise DataError(
            f"beside the training folder {printable(found['train'])} are only validation and test "
            f"folders; {strange[0]!r} is none. Move it into them, or state the splits: splits = "
            "train=NAME,test=NAME, or none where every folder is a class."
        )
    return found


def _require_no_hidden_splits(folder: Path, inside: Sequence[Path]) -> None:
    """Refuse folders that all hold the same two or more folders: they are splits, not classes."""
    held = [{below.name for below in _folders(one)} for one in inside]
    if len(held) > 1 and len(held[0]) > 1 and all(names == held[0] for names in held):
        names = [printable(Path(one.name)) for one in inside]
        raise DataError(
            f"folders of classes differ in what they hold; in {printable(folder)}, "
            f"{', '.join(names[:5])} hold the same folders, as splits do. State them: splits = "
            f"train={names[0]},test={names[1]}, or none where every folder is a class."
        )


def _class_files(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The pictures of each class folder at any depth, and files of other kinds."""
    files: dict[str, list[Path]] = {}
    others: list[Path] = [one for one in sorted(folder.iterdir()) if _is_other(one)]
    for one in _folders(folder):
        try:
            one.name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"names of classes are UTF-8 text; {printable(one)} is none. Rename the folder."
            ) from None
        found = [path for path in _files_below(one) if not path.name.startswith(".")]
        files[one.name] = [path for path in found if path.suffix.lower() in ENDINGS]
        others += [path for path in found if path.suffix.lower() not in ENDINGS]
    if not files:
        raise DataError(
            f"a folder of images holds a folder for each class, named as the class; "
            f"{printable(folder)} holds none. Sort the images into folders."
        )
    empty = [name for name, found in files.items() if not found]
    if empty:
        inside = [path for path in others if folder / empty[0] in path.parents]
        holds = f"{_endings(inside)}, which are no pictures that can be read" if inside else "none"
        raise DataError(
            f"every class folder holds images; {printable(folder / empty[0])} holds {holds}. Add "
            "or convert images, or remove the folder."
        )
    return files, others


def _is_other(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _files_below(folder: Path) -> list[Path]:
    """Files at any depth, sorted; also links to nowhere, but no pipes and devices."""

    def refuse(fault: OSError) -> None:
        raise _unreadable(fault)

    found: list[Path] = []
    for root, below, names in os.walk(folder, onerror=refuse):
        below[:] = [name for name in below if not name.startswith((".", "__"))]
        paths = [Path(root, name) for name in names]
        found += [path for path in paths if path.is_file() or path.is_symlink()]
    return sorted(found)


def _endings(paths: Sequence[Path]) -> str:
    """How many files of each ending: `3 .txt, 1 .pdf`."""
    counts: Mapping[str, int] = Counter(path.suffix.lower() or "no ending" for path in paths)
    return ", ".join(
        f"{count} {printable(Path(ending))}"
        for ending, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    )


def _note_of_others(others: Sequence[Path], folder: Path) -> str:
    first = printable(others[0].relative_to(folder))
    count = (
        "1 file that is no picture is"
        if len(others) == 1
        else (f"{len(others)} files that are no pictures are")
    )
    return f"{count} ignored ({_endings(others)}), such as {first}."
