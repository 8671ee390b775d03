"""Tells the images of an input from what tools leave beside them, by name alone. docs/input.md has the list."""

from __future__ import annotations

import re

_FOLDERS = re.compile(
    r"(?:^|/)(?:__MACOSX|@eaDir|#recycle|lost\+found|\$RECYCLE\.BIN|System Volume Information|\.(?!\.?/)[^/]*)/",
    re.IGNORECASE,
)
"""Of archivers, network drives and file systems; hidden ones (a name that begins with a dot and is not "." or "..")."""

_FILES = re.compile(
    r"""(?:^|/)(?:
      \.(?!\.?$)[^/]*             # hidden, and what macOS writes beside a file (._1.jpg)
    | ~\$[^/]*                    # locks of an office program
    | Thumbs\.db | desktop\.ini | Icon\r
    | [^/]*~                      # an editor's backup
    | [^/]*:(?:Zone\.Identifier|[^/:]*:\$DATA)  # a stream of NTFS, copied as a file
    )$""",
    re.IGNORECASE | re.VERBOSE,
)

_COPIES = re.compile(r"(?:^|/)(?:\._[^/]*$|(?:__MACOSX|@eaDir|\.ipynb_checkpoints|\.thumbnails)/)", re.IGNORECASE)
"""Of images that lie elsewhere: what macOS and network drives write for each of them, notebooks' copies."""

_SUFFIXES = {
    "texts, tables, documents": "txt md rst log csv tsv json jsonl ndjson xml ya?ml toml ini cfg conf html? pdf docx? "
    "xlsx? pptx? odt ods rtf css",
    "programs and notebooks": "py pyc ipynb sh bat js r m java c cpp exe dll so",
    "data and archives": "db sqlite3? npy npz mat pkl pickle pt pth h5 hdf5 keras pb onnx tflite tfrecords? parquet "
    "arrow feather lmdb zip tar gz tgz bz2 xz zst 7z rar",
    "metadata beside images": "xmp aae thm pp3 dop cos exif geojson md5 sha1 sha256 crc crc32",
    "videos and sound": "mp4 m4v mov avi mkv webm mpe?g mts m2ts wmv flv 3gp ogv mp3 wav m4a aac flac ogg",
    "leftovers of editors and downloads": "bak old orig save tmp temp part partial crdownload download swp swo lock "
    "aria2 filepart",
    "of the desktop": "lnk url webloc desktop library-ms",
}
"""Endings of files that are no images, by kind; as regular expressions."""

_NOT_AN_IMAGE = re.compile(rf"\.(?:{'|'.join(' '.join(_SUFFIXES.values()).split())})$", re.IGNORECASE)

_IMAGE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|avif|hei[cf]|tiff?)$", re.IGNORECASE)

_TABLE = re.compile(r"\.(?:csv|tsv|jsonl|ndjson)$", re.IGNORECASE)


def is_litter(name: str) -> bool:
    """Whether a file is not an image of any class: hidden, left behind by a tool, or of another type.

    Args:
        name: relative to the input. In the input's root (a README, a licence) every file without an image suffix is
            litter; in a class folder only files with a known other suffix, such as annotations beside images.
    """
    if _FOLDERS.search(name) or _FILES.search(name) or _NOT_AN_IMAGE.search(name):
        return True
    return "/" not in name and not has_image_suffix(name)


def is_image_ignored(name: str) -> bool:
    """Whether a file that is litter is called like an image and is no copy that a tool has made of one."""
    return has_image_suffix(name) and not _COPIES.search(name)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return _IMAGE.search(name) is not None


def has_table_suffix(name: str) -> bool:
    """Whether a name ends like that of a table that may hold labels."""
    return _TABLE.search(name) is not None


def kinds() -> dict[str, list[str]]:
    """Return kind of file -> its endings, as docs/input.md lists them."""
    return {kind: [re.sub(r"(.)\?", r"(\1)", ending) for ending in text.split()] for kind, text in _SUFFIXES.items()}
