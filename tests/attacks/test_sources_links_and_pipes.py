"""Symbolic link loops, broken links, fifos and unreadable places: no hang, no loss, each named."""

from __future__ import annotations

import os

import pytest

from lmwright.data import corpus
from lmwright.data.corpus import read_corpus


def read(spec):
    rejects = []
    return [document.text for document in read_corpus(spec, rejects=rejects.append)], rejects


def test_link_loops_end_and_each_directory_is_read_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.txt").write_text("x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "z").symlink_to(tmp_path / "a" / "b")
    assert read(tmp_path) == (["x"], [])


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "o.txt").write_text("outside")
    corpus_folder = tmp_path / "corpus"
    corpus_folder.mkdir()
    (corpus_folder / "linked").symlink_to(outside)
    assert read(corpus_folder) == (["outside"], [])


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "ok.txt").write_text("ok")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    texts, [reject] = read(tmp_path)
    assert (texts, reject.kind, reject.path) == (["ok"], "unreadable", str(tmp_path / "broken.txt"))


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "ok.txt").write_text("ok")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    texts, [reject] = read(tmp_path)
    assert (texts, reject.kind) == (["ok"], "unreadable")


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.jsonl", "pipe.parquet", "pipe.txt.gz"])
def test_a_fifo_is_named_and_not_opened(tmp_path, name):
    (tmp_path / "ok.txt").write_text("ok")
    os.mkfifo(tmp_path / name)
    texts, [reject] = read(tmp_path)
    assert (texts, reject.kind) == (["ok"], "unreadable")
    assert "is not a regular file" in reject.reason


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "ok.txt").write_text("ok")
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(corpus.os, "listdir", refuse)
    texts, [reject] = read(tmp_path)
    assert (texts, reject.reason) == (["ok"], "cannot be read (Permission denied)")


def test_folders_nested_deeply(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(300):
            os.mkdir("d")
            os.chdir("d")
        with open("deep.txt", "w") as file:
            file.write("deep")
    finally:
        os.chdir(here)
    assert read(tmp_path)[0] == ["deep"]
