"""Files written in one step, and folders with one writer."""

import errno
import fcntl
import re

import pytest

from otkit_vae._files import only_writer, replacing, write_text


def test_who_reads_a_file_that_is_replaced_reads_all_of_the_old_one(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with file.open() as before:
        with replacing(file) as after:
            after.write("neü".encode())
            assert file.read_text() == "old"
        assert before.read() == "old"
    assert file.read_text(encoding="utf-8") == "neü"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_kept_where_there_was_one(tmp_path):
    file = tmp_path / "file.txt"
    for kept in ("", "; the one that was there is kept"):
        said = re.escape(f"{file} cannot be written (No space left on device){kept}")
        with pytest.raises(OSError, match=f"^{said}$"), replacing(file):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert [at.read_text() for at in tmp_path.iterdir()] == ["old"] * bool(kept)
        file.write_text("old")


def test_a_folder_is_free_again_after_its_writer_and_where_there_are_no_locks(tmp_path, monkeypatch):
    for _ in range(2):
        with (
            only_writer(tmp_path),
            pytest.raises(FileExistsError, match="another training writes to"),
            only_writer(tmp_path),
        ):
            pass

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with only_writer(tmp_path), only_writer(tmp_path):
        pass
