"""Machine code is loaded only from where nobody else could have put it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from retrieval.encoders.compiled import places
from retrieval.encoders.compiled.places import UnusableError, folders, own_folder, read_checked, write_checked

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes on this system")

NAME = "kernels-1.bin"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_checked(b"content", NAME, [tmp_path / "cache"])


def set_owner(monkeypatch: pytest.MonkeyPatch, owners: dict[Path, int]) -> None:
    """Pretend that files belong to other users, and that this process is no administrator."""
    lstat, fstat, inodes = os.lstat, os.fstat, {path.stat().st_ino: owner for path, owner in owners.items()}

    def owned(found: os.stat_result) -> os.stat_result:
        return os.stat_result((*found[:4], inodes.get(found.st_ino, 1000), *found[5:10]))

    monkeypatch.setattr(os, "lstat", lambda path, **_: owned(lstat(path)))
    monkeypatch.setattr(os, "fstat", lambda handle: owned(fstat(handle)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_what_is_written_is_read(written: Path) -> None:
    assert read_checked(written) == b"content"
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert [path.name for path in written.parent.iterdir()] == [NAME], "no temporary file stays"
    with pytest.raises(FileNotFoundError):
        read_checked(written.parent / "kernels-2.bin")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(mode: int, written: Path) -> None:
    written.chmod(mode)
    with pytest.raises(UnusableError, match=rf"{NAME} can be written by other users; chmod go-w"):
        read_checked(written)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_can_write_is_refused(mode: int, written: Path, tmp_path: Path) -> None:
    written.parent.chmod(mode)
    with pytest.raises(UnusableError, match=r"cache can be written by other users"):
        read_checked(written)
    with pytest.raises(UnusableError, match=r"no folder for compiled kernels: .*cache can be written by other users"):
        own_folder([written.parent])
    assert write_checked(b"new", NAME, [written.parent, tmp_path / "other"]).parent == tmp_path / "other"


def test_files_and_folders_of_other_users_are_refused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_owner(monkeypatch, {})
    assert read_checked(written) == b"content"
    set_owner(monkeypatch, {written: 0, written.parent: 0})
    assert read_checked(written) == b"content", "the administrator is trusted"
    for other in (written, written.parent):
        with monkeypatch.context() as patch:
            set_owner(patch, {other: 4711})
            with pytest.raises(UnusableError, match=f"{other.name} belongs to another user"):
                read_checked(written)
    set_owner(monkeypatch, {written.parent: 4711})
    with pytest.raises(UnusableError, match="cache belongs to another user"):
        write_checked(b"new", NAME, [written.parent])


def test_neither_links_nor_pipes_nor_folders_are_read(written: Path, tmp_path: Path) -> None:
    link = written.parent / "kernels-2.bin"
    link.symlink_to(written)
    pipe = written.parent / "kernels-3.bin"
    os.mkfifo(pipe, 0o600)
    (folder := written.parent / "kernels-4.bin").mkdir(0o700)
    (tmp_path / "linked").symlink_to(written.parent)
    for path in (link, pipe, folder, tmp_path / "linked" / NAME, written / "below"):
        with pytest.raises(UnusableError, match=path.parent.name if path.parent.is_symlink() else path.name):
            read_checked(path)


def test_a_file_that_cannot_be_read(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnusableError, match=rf"{NAME}: Permission denied"):
        read_checked(written)


def test_huge_files_are_not_read_into_memory(written: Path) -> None:
    os.truncate(written, 2**40)
    with pytest.raises(UnusableError, match="is damaged"):
        read_checked(written)


def test_the_next_folder_is_taken_when_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = [tmp_path / "file" / "below", tmp_path / "file"]
    with pytest.raises(UnusableError, match=r"no folder for compiled kernels: .*(Not a directory|File exists)"):
        write_checked(b"content", NAME, blocked)
    assert write_checked(b"content", NAME, [*blocked, tmp_path / "free"]) == tmp_path / "free" / NAME


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnusableError, match="No space left on device"):
        write_checked(b"content", NAME, [tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_old_files_are_forgotten(tmp_path: Path) -> None:
    for number in range(12):
        path = write_checked(b"content", f"kernels-{number}.bin", [tmp_path])
        os.utime(path, (number, number))
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 8
    assert "kernels-11.bin" in names


def test_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    beside, cache, temporary = folders()
    assert beside == Path(places.__file__).parent / "__pycache__"
    assert cache == tmp_path / "two-stage-retrieval"
    assert temporary == tmp_path / "temporary" / f"two-stage-retrieval-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folders()[1] == tmp_path / "home" / ".cache" / "two-stage-retrieval"


def test_neither_home_nor_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert folders() == [Path(places.__file__).parent / "__pycache__"]
