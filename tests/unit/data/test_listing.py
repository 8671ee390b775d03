"""Listing an input: what there is to train on, from real folders and files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from listed_inputs import ANIMALS, put, read_from
from posix_locale import output_of
from structlog.testing import capture_logs

from job import storage
from job.config.settings import InputSettings
from job.data.labels import TEST, TRAIN, VALIDATION
from job.data.listing import read_listing
from job.data.manifest import Manifest, check_usable
from job.data.quarantine import Quarantined
from job.errors import DataError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def images(manifest: Manifest) -> dict[str, tuple[str, int]]:
    """Return each image's name with its label and the code of its named split."""
    return {
        name: (manifest.labels[label], split)
        for name, label, split in zip(manifest.names, manifest.label.tolist(), manifest.split.tolist(), strict=True)
    }


def events(logs: list[Any]) -> dict[str, Any]:
    """Return each event of the input that was logged with its count."""
    ours = [entry for entry in logs if entry["event"].startswith("input.")]
    return {entry["event"]: entry.get("files") or entry.get("images") or entry.get("rows") for entry in ours}


@pytest.mark.parametrize("form", ["folders", "csv"])
def test_every_object_is_a_sign_of_life(tmp_path: Path, form: str) -> None:
    """Whoever watches hears of each object that is found, so that a long listing is not taken for a stall."""
    place = put(tmp_path / "animals", ANIMALS)
    if form == "csv":
        place = tmp_path / "animals.csv"
        rows = [f"animals/{name},{name.partition('/')[0]}" for name in ANIMALS]
        place.write_text("\n".join(["image_uri,label", *rows]))
    found: list[int] = []
    read_listing(InputSettings(uri=str(place)), storage.open_store, lambda: found.append(1))

    assert len(ANIMALS) == len(found)


def test_folders(tmp_path: Path) -> None:
    """A folder is a class; every image is described as its store describes it."""
    put(tmp_path, [*ANIMALS, "dogs/puppies/1.png"])

    manifest, quarantined = read_from(tmp_path)

    assert ((str(tmp_path),), ("cats", "dogs")) == (manifest.roots, manifest.labels)
    assert {name: (name.split("/")[0], 0) for name in [*ANIMALS, "dogs/puppies/1.png"]} == images(manifest)
    assert sorted(manifest.names) == manifest.names
    assert [] == quarantined
    store = storage.open_store(str(tmp_path))
    assert [store.stat(name) for name in manifest.names] == [manifest.object(row) for row in range(len(manifest))]


def test_files_of_tools_are_ignored_and_counted_once(tmp_path: Path) -> None:
    """What desktops and notebooks leave behind is no class, no image and not quarantined; the log has its count."""
    put(tmp_path, ANIMALS)
    put(tmp_path, [".ipynb_checkpoints/x.jpg", "__MACOSX/cats/._1.jpg", "cats/._2.jpg", "cats/Thumbs.db"], bytes(4096))
    put(tmp_path, [".DS_Store", "cats/.DS_Store", "dogs/.DS_Store", "README.txt", "dogs/1.xml"], b"")

    with capture_logs() as logs:
        manifest, quarantined = read_from(tmp_path)

    assert (("cats", "dogs"), ANIMALS, []) == (manifest.labels, sorted(manifest.names, key=ANIMALS.index), quarantined)
    assert {"input.files_ignored": 9} == events(logs)
    check_usable(manifest, quarantined, 0)


def test_images_outside_the_classes_are_reported(tmp_path: Path) -> None:
    """An image beside the class folders has no label: it is left out, with a warning."""
    with capture_logs() as logs:
        manifest, _ = read_from(put(tmp_path, [*ANIMALS, "1.jpg", "2.png"]))

    assert {"input.unlabelled_ignored": 2} == events(logs)
    assert 40 == len(manifest)


def test_only_images_outside_classes(tmp_path: Path) -> None:
    """Images without class folders are an error that shows the layout."""
    with pytest.raises(DataError, match=r"images outside class folders: 2 \(1\.jpg, 2\.jpg\); other") as raised:
        read_from(put(tmp_path, ["1.jpg", "2.jpg"]))

    assert "cats/1.jpg" in raised.value.remedy
    assert f"did you mean the folder above, {tmp_path.parent}?" in raised.value.remedy


def test_a_table_among_the_images_is_named(tmp_path: Path) -> None:
    """Images without class folders beside a table: it probably names their labels."""
    with pytest.raises(DataError) as raised:
        read_from(put(tmp_path, ["1.jpg", "2.jpg", "metadata.csv"]))

    assert f"if {tmp_path}/metadata.csv names the labels, give it as input.uri" in raised.value.remedy
    with pytest.raises(DataError, match="labels seem to be in their names, or in a table") as raised:
        read_from(put(tmp_path / "in", ["train/1.jpg", "train/metadata.csv"]))
    assert f"if {tmp_path}/in/train/metadata.csv names the labels, give it as input.uri" in raised.value.remedy


def test_exclude(tmp_path: Path) -> None:
    """What a pattern matches is left out before the folders are judged; the same data are left without a pattern."""
    put(tmp_path / "whole", [*ANIMALS, "extra/cats/1.jpg", "cats/thumbs/1.jpg"])
    put(tmp_path / "rest", ANIMALS)

    with capture_logs() as logs:
        manifest, _ = read_from(tmp_path / "whole", exclude="extra/,*/thumbs")

    assert manifest.digest() == read_from(tmp_path / "rest")[0].digest()
    assert {"input.excluded": 2} == events(logs)


def test_exclude_everything(tmp_path: Path) -> None:
    """Patterns that leave nothing are counted in the message."""
    with pytest.raises(DataError, match=r"left out by input\.exclude: 40"):
        read_from(put(tmp_path, ANIMALS), exclude=("*",))


def test_exclude_of_a_manifest(tmp_path: Path) -> None:
    """A manifest is not filtered; a warning says so."""
    put(tmp_path, ["cats/1.jpg", "dogs/1.jpg"])
    (tmp_path / "list.csv").write_text("cats/1.jpg,cat\ndogs/1.jpg,dog\n")

    with capture_logs() as logs:
        assert 2 == len(read_from(tmp_path / "list.csv", exclude=("cats",))[0])

    assert ["input.exclude_ignored"] == list(events(logs))


def test_layout_by_hand(tmp_path: Path) -> None:
    """Folders that are refused are read as the setting says."""
    put(tmp_path, [f"{site}/{name}" for site in ("siteA", "siteB") for name in ANIMALS])

    with pytest.raises(DataError, match=r"siteA/  40 images: cats/ 20, dogs/ 20"):
        read_from(tmp_path)
    assert ("siteA", "siteB") == read_from(tmp_path, layout="classes")[0].labels


def test_empty_folders_are_reported(tmp_path: Path) -> None:
    """A folder without an image is no class; a warning names it."""
    put(tmp_path, ANIMALS)
    (tmp_path / "birds/old").mkdir(parents=True)

    with capture_logs() as logs:
        assert ("cats", "dogs") == read_from(tmp_path)[0].labels

    [warning] = [entry for entry in logs if entry["event"] == "input.folders_empty"]
    assert (1, ["birds"]) == (warning["folders"], warning["examples"])


@pytest.mark.parametrize(("name", "problem"), [("empty", "no file under"), ("nowhere", "no folder")])
def test_nothing_there(tmp_path: Path, name: str, problem: str) -> None:
    """An empty or missing folder is an error that names it."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match=f"there is {problem} {tmp_path / name}"):
        read_from(tmp_path / name)


def test_an_image_as_input(tmp_path: Path) -> None:
    """An image is no data set: the folder above its class folder is named."""
    put(tmp_path, ["cats/1.jpg"])

    with pytest.raises(DataError, match=r"cats/1\.jpg is an image") as raised:
        read_from(tmp_path / "cats/1.jpg")
    assert raised.value.remedy.endswith(f": {tmp_path}")


def test_split_folders(tmp_path: Path) -> None:
    """With train/, validation/ and test/ on top, labels are the folders below, matched by name, as strings."""
    names = [f"train/{label}/{i}.jpg" for label in (0, 2, 10, 90) for i in range(3)]
    names += ["validation/90/x.jpg", "validation/0/x.jpg", "test/10/x.jpg"]
    (tmp_path / "validation" / "2").mkdir(parents=True)

    manifest, quarantined = read_from(put(tmp_path, names))

    codes = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    assert ("0", "10", "2", "90") == manifest.labels
    assert {name: (name.split("/")[1], codes[name.split("/")[0]]) for name in names} == images(manifest)
    check_usable(manifest, quarantined, 0)


def test_classes_that_look_alike(tmp_path: Path) -> None:
    """Class folders that differ only by case are an error that names both."""
    with pytest.raises(DataError, match="'Cats' and 'cats'"):
        read_from(put(tmp_path, [*ANIMALS, "Cats/1.jpg"]))


def test_empty_files_are_quarantined(tmp_path: Path) -> None:
    """A file without bytes is quarantined as empty, not listed."""
    put(tmp_path, ANIMALS)
    put(tmp_path, ["cats/real.jpg"], b"")

    manifest, quarantined = read_from(tmp_path)

    assert "cats/real.jpg" not in manifest.names
    uri = f"{tmp_path}/cats/real.jpg"
    assert [Quarantined(uri, "cats", 0, "empty", "the file has no bytes")] == quarantined
    check_usable(manifest, quarantined, 0.05)


def test_odd_names(tmp_path: Path) -> None:
    """Any name that a disk can hold is kept as it is; outputs show it as valid UTF-8."""
    names = ["a/x y%20#?&.jpg", "a/new\nline.jpg", "a/ümlaut猫.jpg", "b/caf\udce9.jpg", f"b/{'n' * 250}", "b/x.."]
    put(tmp_path, names)

    manifest, _ = read_from(tmp_path)

    assert sorted(names) == manifest.names
    text = "\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in manifest.rows())
    assert r"caf\\udce9.jpg" in text
    assert len(names) == len([json.loads(line) for line in text.encode().decode().splitlines()])
    assert 64 == len(manifest.digest())


def test_spreadsheet(tmp_path: Path) -> None:
    """Absent files and contradictory rows of a manifest are quarantined, repeated rows count once."""
    put(tmp_path / "images", ANIMALS)
    lines = ["image_uri,label,split", ""]
    lines += [f'images/{name},"tabby, grey",' if "cats" in name else f"images/{name},dog," for name in ANIMALS]
    lines += ["", "images/cats/1.jpg,dog,", "images/dogs/1.jpg,dog,", "images/x.jpg,dog,", "images/dogs/2.jpg,dog,test"]
    table = tmp_path / "list.csv"
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    with capture_logs() as logs:
        manifest, quarantined = read_from(table)

    assert (("dog", "tabby, grey"), (f"{tmp_path}/images",), 38) == (manifest.labels, manifest.roots, len(manifest))
    assert {"input.duplicate_rows_ignored": 1} == events(logs)
    expected = {
        "cats/1.jpg": ("tabby, grey", "conflicting_labels", "line 4 calls it 'tabby, grey', line 44 calls it 'dog'"),
        "dogs/2.jpg": ("dog", "conflicting_splits", "line 25 puts it into no split, line 47 into test"),
        "x.jpg": ("dog", "missing", "the manifest names it, but there is no such file"),
    }
    found = {q.uri.removeprefix(f"{tmp_path}/images/"): (q.label, q.reason, q.detail) for q in quarantined}
    assert expected == found
    with pytest.raises(DataError, match=r"3 of 41 images [^\n]*\n[^\n]* line 4 calls it 'tabby, grey', line 44"):
        check_usable(manifest, quarantined, 0.01)
    check_usable(manifest, quarantined, 0.2)


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.csv", "auto"), ("a.TSV", "auto"), ("a", "auto"), ("a.txt", "csv"), ("b.jsonl", "auto"), ("b", "auto")],
)
def test_formats(tmp_path: Path, name: str, format_: str) -> None:
    """A manifest is known by its ending, else by its being a file, or by the setting."""
    put(tmp_path, ["cats/1.jpg", "dogs/1.jpg"])
    csv_text = "cats/1.jpg,cat\ndogs/1.jpg,dog\n"
    jsonl_text = '{"image": "cats/1.jpg", "label": "cat"}\n{"image": "dogs/1.jpg", "label": "dog"}\n'
    (tmp_path / name).write_text(jsonl_text if name.startswith("b") else csv_text)

    manifest, quarantined = read_from(tmp_path / name, format=format_)

    assert {"cats/1.jpg": ("cat", 0), "dogs/1.jpg": ("dog", 0)} == images(manifest)
    assert [] == quarantined


def test_a_folder_called_like_a_manifest(tmp_path: Path) -> None:
    """A folder whose name ends in .csv is read as one when the setting says so, and the error says that it can be."""
    put(tmp_path / "data.csv", ANIMALS)

    with pytest.raises(DataError, match="there is no manifest") as raised:
        read_from(tmp_path / "data.csv")
    assert "input.format=folders" in raised.value.remedy
    assert 40 == len(read_from(tmp_path / "data.csv", format="folders")[0])


@pytest.mark.parametrize(("name", "data"), [("a.csv", b"\n"), ("a.csv", b"image,label\n"), ("a.jsonl", b"")])
def test_manifest_without_rows(tmp_path: Path, name: str, data: bytes) -> None:
    """A manifest that names no image is an error."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DataError, match="has no rows"):
        read_from(tmp_path / name)


@pytest.mark.parametrize("header", ["id,breed", "foto;klasse", ",foto,klasse", "foto,klasse,quelle", "foto,split"])
def test_unknown_header(tmp_path: Path, header: str) -> None:
    """A first row that names no file and looks like names is reported as a header, and nothing is trained on."""
    put(tmp_path, ANIMALS)
    delimiter = ";" if ";" in header else ","
    lines = [
        delimiter.join([f"{name}", name.partition("/")[0], "x", "y"][: header.count(delimiter) + 1]) for name in ANIMALS
    ]
    if header.startswith(","):
        lines = [f"0,{name},{name.partition('/')[0]}" for name in ANIMALS]
    (tmp_path / "list.csv").write_text("\n".join([header, *lines]))

    with pytest.raises(DataError, match="line 1 looks like a header") as raised:
        read_from(tmp_path / "list.csv", max_bad_fraction=0.9)

    assert 3 == raised.value.exit_code
    assert "input.image_column" in raised.value.remedy
    assert "imageid" in raised.value.remedy


def test_unknown_header_of_names_without_suffix(tmp_path: Path) -> None:
    """Where the names of all files lack their suffix, the header is still what the error is about."""
    put(tmp_path, ["a0.jpg", "b1.jpg"])
    (tmp_path / "list.csv").write_text("id,breed\na0,collie\nb1,poodle\n")

    with pytest.raises(DataError, match="line 1 looks like a header"):
        read_from(tmp_path / "list.csv", max_bad_fraction=1)


def test_columns_of_the_settings(tmp_path: Path) -> None:
    """Columns may have any name, if the settings name them."""
    put(tmp_path, ANIMALS)
    lines = [f"{i % 2},{name},{name.partition('/')[0]},{('train', 'val')[i % 2]}" for i, name in enumerate(ANIMALS)]
    (tmp_path / "list.csv").write_text("\n".join(["label,id,breed,fold", *lines]))

    manifest, quarantined = read_from(
        tmp_path / "list.csv", image_column="id", label_column="breed", split_column="fold"
    )

    assert [] == quarantined
    assert ("cats", "dogs") == manifest.labels
    assert [0, 20, 20] == np.bincount(manifest.split).tolist()


def test_groups_of_folders(tmp_path: Path) -> None:
    """A column of groups is refused for an input of folders: its groups would be shared out over the splits."""
    with pytest.raises(SettingsError, match=r"input.group_column is 'patient'"):
        read_from(put(tmp_path, ANIMALS), group_column="patient")


def test_rows_of_one_image_in_two_groups(tmp_path: Path) -> None:
    """An image that a table puts into two groups is quarantined; rows that agree are one."""
    put(tmp_path, ANIMALS)
    rows = [f"{name},{name.partition('/')[0]},p{i % 7}" for i, name in enumerate(ANIMALS)]
    rows += ["cats/0.jpg,cats,p1", rows[1]]
    (tmp_path / "list.csv").write_text("\n".join(["image,label,patient", *rows]))

    manifest, [image] = read_from(tmp_path / "list.csv", group_column="patient")

    assert (39, "conflicting_groups") == (len(manifest), image.reason)
    assert "line 2 and line 42" in image.detail


def test_columns_of_folders(tmp_path: Path) -> None:
    """A column that is named for an input of folders has no effect, and a warning says so."""
    with capture_logs() as logs:
        read_from(put(tmp_path, ANIMALS), label_column="breed")

    [warning] = [entry for entry in logs if entry["event"] == "input.columns_ignored"]
    assert ("warning", ["breed"]) == (warning["log_level"], warning["columns"])


def test_first_row_without_suffix(tmp_path: Path) -> None:
    """A first row that looks like names is an image where there is such a file."""
    put(tmp_path, ["foto", "klasse"])
    (tmp_path / "list.csv").write_text("foto,cat\nklasse,dog\n")

    manifest, quarantined = read_from(tmp_path / "list.csv")

    assert ({"foto": ("cat", 0), "klasse": ("dog", 0)}, []) == (images(manifest), quarantined)


def test_absolute_paths_under_common_names(tmp_path: Path) -> None:
    """`image_id,target` with absolute paths is read as it is."""
    put(tmp_path, ANIMALS)
    rows = [f"{tmp_path}/{name},{name.partition('/')[0]}" for name in ANIMALS]
    (tmp_path / "list.csv").write_text("\n".join(["image_id,target", *rows]))

    manifest, quarantined = read_from(tmp_path / "list.csv")

    assert ((40, ("cats", "dogs")), []) == ((len(manifest), manifest.labels), quarantined)


@pytest.mark.parametrize("name", ["list.json", "list.jsonl", "list"])
def test_json_array(tmp_path: Path, name: str) -> None:
    """A JSON array is named as such, with any file name."""
    rows = [{"image": image, "label": image.partition("/")[0]} for image in ANIMALS]
    (put(tmp_path, ANIMALS) / name).write_text(json.dumps(rows, indent=1))

    with pytest.raises(DataError, match=f"{name} is a JSON array, not JSON Lines"):
        read_from(tmp_path / name)


def test_a_picture_is_no_manifest(tmp_path: Path) -> None:
    """A file that is no text is refused as a manifest."""
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0" * 10)

    with pytest.raises(DataError, match="not UTF-8"):
        read_from(tmp_path / "photo")


def test_rows_of_a_manifest_may_lie_anywhere(tmp_path: Path) -> None:
    """A local manifest may name files above it and absolute paths; names are relative to what they have in common."""
    put(tmp_path / "x" / "images", ["a/1.jpg", "b/1.jpg"])
    (tmp_path / "x" / "lists").mkdir()
    table = tmp_path / "x" / "lists" / "list.csv"
    table.write_text(f"../images/a/1.jpg,a\n{tmp_path}/x/images/b/1.jpg,b\n")

    manifest, _ = read_from(table)

    assert (str(tmp_path / "x" / "images"),) == manifest.roots
    assert ["a/1.jpg", "b/1.jpg"] == manifest.names
    assert f"{tmp_path}/x/images/a/1.jpg" == manifest.uri(0)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_names_under_the_posix_locale(tmp_path: Path, layout: str) -> None:
    """A class or an image whose name is not ASCII is no fault of the name: the error blames the locale."""
    put(tmp_path, ["café/1.jpg", "dog/1.jpg"])
    (tmp_path / "list.csv").write_text("café/1.jpg,a\ndog/1.jpg,b\n", encoding="utf-8")
    place = tmp_path if layout == "folders" else tmp_path / "list.csv"

    output = output_of(
        "import sys; from listed_inputs import read_from; from pathlib import Path; read_from(Path(sys.argv[1]))",
        str(place),
    )

    assert "SettingsError: the locale's encoding of file names is 'ascii', not UTF-8, so 'caf" in output
    assert "class name" not in output


@pytest.mark.slow
def test_image_names_under_the_posix_locale(tmp_path: Path) -> None:
    """An image with any name is read if its class has an ASCII name: the data's hash is that of any locale."""
    put(tmp_path, ["cat/é.jpg", "dog/1.jpg"])

    output = output_of(
        "import sys; from listed_inputs import read_from; from pathlib import Path;"
        "print(read_from(Path(sys.argv[1]))[0].digest())",
        str(tmp_path),
    )

    assert read_from(tmp_path)[0].digest() == output.strip()
