"""`affectdata ingest`: what it prints, its JSON document, its exit codes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from affectdata.cli import ingest as ingest_command
from affectdata.manifest.manifest import load_manifest


def test_what_is_printed(cli: Any, small_gaped: Path, tmp_path: Path) -> None:
    ran = cli("ingest", small_gaped, "--out", tmp_path)
    assert ran.code == 0 and ran.err == ""  # no progress where there is no terminal
    lines = ran.out.splitlines()
    assert lines[0].startswith("Geneva Affective PicturE Database (gaped): A.txt beside")
    assert lines[1] == "37 seen: 18 kept, 0 merged, 13 annotation, 6 junk, 0 rejected"
    assert [line.split() for line in lines if line.startswith("  Sn ")] == [["Sn", "snakes", "4"]]
    histogram = [line.split() for line in lines if "–" in line and line.startswith("  ")][:10]
    valences = load_manifest(tmp_path / "gaped.parquet").table["valence"].to_pylist()
    for low, row in zip(range(0, 100, 10), histogram, strict=True):
        assert row[0] == f"{low}–{low + 10}"
        assert int(row[1]) == sum(min(int(valence // 10), 9) * 10 == low for valence in valences)
    assert lines[-3].startswith("terms: CC BY-NC-SA")
    assert lines[-2] == f"wrote {tmp_path / 'gaped.parquet'}"
    assert lines[-1] == "next: affectdata balance --recipe valence_bins --dry-run"


def test_the_last_bin_is_closed(cli: Any, gaped_copy: Path, tmp_path: Path) -> None:
    table = gaped_copy / "P.txt"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    for row, valence in zip(rows[1:], ("100", "90", "89.999", "0"), strict=True):
        row[1] = valence
    table.write_text("\n".join("\t".join(row) for row in rows))
    for code in ("A", "H", "N", "Sn", "Sp"):
        for path in (gaped_copy / f"{code}.txt", gaped_copy / f"{code}_with SD.txt"):
            path.unlink()
        shutil.rmtree(gaped_copy / code)
    document = cli("ingest", gaped_copy, "--out", tmp_path / "out", "--json").document
    assert document["valence_histogram"] == [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]


def test_a_second_run_prints_the_same(cli: Any, gaped_copy: Path, tmp_path: Path) -> None:
    next(gaped_copy.glob("P/*.bmp")).write_bytes(b"")
    for options in ((), ("--json",)):
        first, second = (cli("ingest", gaped_copy, "--out", tmp_path, *options) for _ in range(2))
        assert first == second and first.code == 0


def test_json_is_one_document(cli: Any, small_gaped: Path, tmp_path: Path) -> None:
    ran = cli("ingest", small_gaped, "--out", tmp_path, "--json")
    assert ran.code == 0 and ran.err == ""
    document = ran.document
    assert document["schema"] == "affectdata/ingest/1"
    assert document["counts"] == {"kept": 18, "merged": 0, "annotation": 13, "junk": 6, "rejected": 0}
    assert document["subtypes"] == {"A": 3, "H": 2, "N": 3, "P": 4, "Sn": 4, "Sp": 2}
    assert sum(document["valence_histogram"]) == 18
    assert document["digest"] == load_manifest(document["manifest"]).digest
    assert {"source", "recognised_by", "reasons", "findings"} <= document.keys()


def test_what_is_not_in_the_manifest_is_named(
    cli: Any, gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_command, "_FIRST_REJECTS", 2)
    for number, path in enumerate(sorted(gaped_copy.glob("N/*.bmp"))):
        path.write_bytes(b"" if number else b"text")
    ran = cli("ingest", gaped_copy, "--out", tmp_path / "out")
    assert ran.code == 0
    assert "\nnot in the manifest: 3 unreadable\n" in ran.out
    assert "unreadable: not an image that any decoder can read" in ran.out
    assert f"… all 3 are in {tmp_path / 'out/gaped.rejects.parquet'}" in ran.out
    assert "fix for unreadable: these files are damaged or no images" in ran.out
    again = cli("ingest", gaped_copy, "--out", tmp_path / "out", "--json")
    assert again.document["reasons"] == {"unreadable": 3}


def test_junk_is_listed_by_kind(cli: Any, gaped_copy: Path, tmp_path: Path) -> None:
    for name in ("a.docx", "b.DOCX", "A/._A001.bmp", ".cache/x/y.bmp", "LOCK"):
        (gaped_copy / name).parent.mkdir(parents=True, exist_ok=True)
        (gaped_copy / name).write_bytes(b"x")
    ran = cli("ingest", gaped_copy, "--out", tmp_path / "out")
    assert "\njunk: 6 Thumbs.db, 2 *.docx, 1 .cache/, 1 ._*, 1 without a suffix\n" in ran.out
    document = cli("ingest", gaped_copy, "--out", tmp_path / "out", "--json").document
    assert sum(document["junk"].values()) == document["counts"]["junk"] == 11


def test_findings_are_printed(cli: Any, gaped_copy: Path, tmp_path: Path) -> None:
    p1, p2, *_ = sorted(gaped_copy.glob("P/*.bmp"))
    p2.write_bytes(p1.read_bytes())
    ran = cli("ingest", gaped_copy, "--out", tmp_path / "out")
    findings = ran.out.split("\nfindings\n")[1]
    assert f"P/{p2.name}: the same bytes as P/{p1.name}, labelled differently" in findings
    kinds = [
        each["kind"]
        for each in cli("ingest", gaped_copy, "--out", tmp_path / "out", "--json").document["findings"]
    ]
    assert "conflict" in kinds


def test_where_it_writes_by_default(
    cli: Any, small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("ingest", small_gaped).code == 0
    assert sorted(path.name for path in (tmp_path / "manifests").iterdir()) == [
        ".gaped.ending.json",
        ".gaped.memo",
        ".local.json",
        "gaped.edges.parquet",
        "gaped.parquet",
        "gaped.rejects.parquet",
    ]


def test_emotions_are_counted(cli: Any, tmp_path: Path) -> None:
    cli("sample", "image_folder", tmp_path / "faces")
    folders = {path.parent.name for path in (tmp_path / "faces").rglob("*.*")}
    assert {"sad", "joy"} <= folders
    ran = cli("ingest", tmp_path / "faces", "--out", tmp_path / "out", "--json")
    counts = ran.document["emotions"]
    assert sum(counts.values()) == ran.document["counts"]["kept"] and {"sadness", "joy"} <= counts.keys()
    said = cli("ingest", tmp_path / "faces", "--out", tmp_path / "out").out
    assert all(re.search(rf"^  {word} +{n}$", said, re.MULTILINE) for word, n in counts.items())


def test_what_a_machine_estimated_is_said(cli: Any, tmp_path: Path) -> None:
    cli("sample", "utkface", tmp_path / "faces")
    ran = cli("ingest", tmp_path / "faces", "--out", tmp_path / "out")
    assert "\nestimated by a machine: age, age_group, gender, ethnicity\n" in ran.out
    assert "machine:  estimated age, age_group, gender, ethnicity" in cli("sources", "utkface").out


def test_onto_opens_no_image(cli: Any, tmp_path: Path) -> None:
    ran = cli("ingest", "capd.csv", "--onto", tmp_path / "gaped.parquet", "--strict", "--rehash")
    assert ran.code == 2 and "--strict, --rehash have no effect with --onto" in ran.err


def fails(cli: Any, *arguments: object, code: int = 3) -> str:
    ran = cli(*arguments)
    assert ran.code == code and ran.out == ""
    assert ran.err.startswith("error: ") and "  fix:   " in ran.err and "Traceback" not in ran.err
    return str(ran.err)


def test_bad_roots(cli: Any, tmp_path: Path, small_gaped: Path) -> None:
    empty, file, wrong, parent = (tmp_path / name for name in ("empty", "file", "wrong", "parent"))
    empty.mkdir()
    file.write_text("x")
    wrong.mkdir()
    (wrong / "letter.doc").write_text("x")
    shutil.copytree(small_gaped, parent / "gaped")
    assert "does not exist" in fails(cli, "ingest", tmp_path / "none")
    assert f"{empty} is empty" in fails(cli, "ingest", empty)
    said = fails(cli, "ingest", file)
    assert "is a file, not a folder" in said and "ingest TABLE --onto MANIFEST" in said
    assert "no source recognises" in fails(cli, "ingest", wrong)
    assert f"affectdata ingest '{parent / 'gaped'}'" in fails(cli, "ingest", parent)
    assert "no image and no rating of gaped" in fails(cli, "ingest", wrong, "--source", "gaped")
    assert "did you mean 'gaped'?" in fails(cli, "ingest", small_gaped, "--source", "gapd", code=2)


def test_a_table_without_its_column(cli: Any, gaped_copy: Path, tmp_path: Path) -> None:
    table = gaped_copy / "N.txt"
    table.write_text(table.read_text().replace("Arousal", "Arosal"))
    error = fails(cli, "ingest", gaped_copy, "--out", tmp_path / "out")
    assert "N.txt lacks the column 'Arousal'" in error and "header: " in error and "'Arosal'" in error
    assert not (tmp_path / "out").exists()


def test_another_folder_needs_replace(cli: Any, small_gaped: Path, gaped_copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("ingest", small_gaped, "--out", out).code == 0
    assert "--replace" in fails(cli, "ingest", gaped_copy, "--out", out, code=2)
    assert cli("ingest", gaped_copy, "--out", out, "--replace").code == 0


def test_a_folder_that_cannot_be_written(cli: Any, small_gaped: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in its place")
    assert "cannot write" in fails(cli, "ingest", small_gaped, "--out", tmp_path / "out")
