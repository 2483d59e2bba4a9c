"""SHA256SUMS: digests of the files of a delivered network, which are verified when it is opened.

Anyone can verify them without Pliant: `sha256sum --check SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pliant.errors import DamagedFileError
from pliant.files import write_atomically

SUMS = "SHA256SUMS"
FILES = (
    "model.onnx",
    "model.int8.onnx",
    "model.tflite",
    "model.safetensors",
    "model.py",
    "predict.py",
    "card.md",
    "growth.json",
)


def write_sums(folder: Path) -> None:
    """Write the digests of the delivered files that are in a folder, as `sha256sum` writes them."""
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in FILES
        if (folder / name).is_file()
    ]
    write_atomically(folder / SUMS, "".join(lines))


def require_intact(path: Path, content: bytes) -> None:
    """Refuse a delivered file that is not what was written; one that was taken away alone passes.

    Args:
        path: of the file.
        content: its bytes, as they were read.

    Raises:
        DamagedFileError: its digest is not the one beside it.
    """
    sums = path.with_name(SUMS)
    if path.name not in FILES or not sums.is_file():
        return
    stated = f"{hashlib.sha256(content).hexdigest()}  {path.name}".encode()
    if stated not in sums.read_bytes().splitlines():
        raise DamagedFileError(
            f"a delivered file is what was written; {path} and its line in {sums.name} differ. "
            "Deliver it again with `pliant deploy`."
        )
