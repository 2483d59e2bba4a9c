"""SHA256SUMS: as coreutils reads it, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from pliant.deploy.sums import FILES, SUMS, require_intact, write_sums
from pliant.errors import DamagedFileError


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    """A folder with every file that can be delivered, and one that is none of them."""
    for number, name in enumerate((*FILES, "notes.txt")):
        (tmp_path / name).write_bytes(bytes([number]) * 100)
    write_sums(tmp_path)
    return tmp_path


def test_each_delivered_file_has_its_digest_and_no_other(delivered: Path) -> None:
    lines = (delivered / SUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == list(FILES)
    for line in lines:
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((delivered / name).read_bytes()).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="takes coreutils")
def test_the_systems_own_tool_verifies_it(delivered: Path) -> None:
    def verify() -> int:
        words = ["sha256sum", "--check", "--status", SUMS]
        return subprocess.run(words, cwd=delivered, check=False).returncode

    assert verify() == 0
    (delivered / "model.py").write_bytes(b"changed")
    assert verify() != 0


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_by_name(delivered: Path, name: str) -> None:
    path = delivered / name
    require_intact(path, path.read_bytes())
    with pytest.raises(DamagedFileError, match=rf"{name} and its line .* differ.*pliant deploy"):
        require_intact(path, path.read_bytes() + b"x")


def test_the_content_of_another_file_is_refused(delivered: Path) -> None:
    """The digest alone is not enough: it must be that of this name."""
    with pytest.raises(DamagedFileError):
        require_intact(delivered / "model.py", (delivered / "predict.py").read_bytes())


def test_a_file_that_the_sums_do_not_have_is_refused_and_one_taken_away_passes(
    delivered: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = (delivered / SUMS).read_text().splitlines()
    (delivered / SUMS).write_text("\n".join(line for line in lines if "card.md" not in line))
    with pytest.raises(DamagedFileError):
        require_intact(delivered / "card.md", (delivered / "card.md").read_bytes())
    require_intact(delivered / "notes.txt", b"anything")
    alone = tmp_path_factory.mktemp("alone") / "model.onnx"
    require_intact(alone, b"anything")
