"""Remove from an environment what no run of the job needs, and say how much each of it was. The image's build runs it.

    /opt/finetune/venv/bin/python scripts/slim_image.py

It works on the environment of the Python that runs it. The packages' metadata stay, for the bill of materials.
Symbol tables are cut off here and not by ``strip``, so that the build needs no compiler's tools, and that two builds
give the same bytes whatever version of these there is.
"""

from __future__ import annotations

import shutil
import struct
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

UNUSED = {
    "tensorflow/include": "headers, to compile against TensorFlow",
    "clang": "libclang, which TensorFlow's own build asks for",
    "nvidia/*/include": "headers, to compile against CUDA",
    "nvidia/*/lib/*.a": "to link with CUDA",
    "nvidia/cuda_nvcc/nvvm/lib64": "libnvvm, to compile CUDA C++; XLA needs ptxas and libdevice alone",
    "nvidia/cuda_nvrtc/lib/*.alt.so*": "the compiler once more, for those who ask for it by name",
    "nvidia/cublas/lib/libnvblas.so*": "for programs that use another BLAS",
    "nvidia/cufft/lib/libcufftw.so*": "for programs that use FFTW",
    "nvidia/cusolver/lib/libcusolverMg.so*": "for several GPUs at once, which TensorFlow does not do with it",
    "kubernetes/aio": "the client once more, for asyncio",
    "**/tests": "the packages' own tests",
    "**/*.pyi": "types, for a type checker",
    "**/*.a": "to link with NumPy",
}


def main() -> None:
    """Remove it all."""
    site_packages = Path(sysconfig.get_path("purelib"))
    assert sys.prefix != sys.base_prefix, "this would remove parts of the system's Python"
    for pattern, what in UNUSED.items():
        removed = sum(remove(path) for path in sorted(site_packages.glob(pattern)))
        print(f"{removed / 1e6:8.1f} MB  {pattern}: {what}")
    removed = sum(strip(path) for path in sorted(site_packages.rglob("*.so*")))
    print(f"{removed / 1e6:8.1f} MB  symbol tables of shared libraries: for a debugger")


def remove(path: Path) -> int:
    """Remove a file or a folder, and return how many bytes it had. One inside another one is gone by then."""
    if not path.exists():
        return 0
    if path.is_dir():
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size
    path.unlink()
    return size


class Section(NamedTuple):
    """A section header of an ELF file of 64 bits: ``Elf64_Shdr`` in elf(5)."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


SECTION = struct.Struct("<IIQQQQIIQQ")
SHT_SYMTAB, SHT_NOBITS, SHF_ALLOC = 2, 8, 2


def strip(path: Path) -> int:
    """Cut a shared library's symbol table and its names off, and return how many bytes that makes.

    They are about a quarter of TensorFlow. The loader does not read them: what it needs is in the dynamic symbols,
    which stay. A file that is laid out in another way than linkers do, as after patchelf, is left as it is.
    """
    if path.is_symlink():
        return 0
    with path.open("r+b") as file:
        header = bytearray(file.read(64))
        if header[:6] != b"\x7fELF\2\1":  # 64 bits, little endian
            return 0
        (table,) = struct.unpack_from("<Q", header, 40)
        count, names = struct.unpack_from("<HH", header, 60)
        file.seek(table)
        sections = [Section._make(fields) for fields in SECTION.iter_unpack(file.read(count * SECTION.size))]
        symbols = next((section for section in sections if section.type == SHT_SYMTAB), None)
        if symbols is None or symbols.link == names:
            return 0
        cut = {sections.index(symbols), symbols.link}
        start = min(sections[index].offset for index in cut)
        behind = [
            index
            for index, section in enumerate(sections)
            if index not in cut and section.type != SHT_NOBITS and section.offset >= start
        ]
        if table < start or any(sections[index].flags & SHF_ALLOC for index in behind):
            return 0
        # What lies behind the cut moves forward, the table of the sections last of all.
        kept = b""
        for index in behind:
            file.seek(sections[index].offset)
            moved = file.read(sections[index].size)
            kept += bytes(-(start + len(kept)) % max(1, sections[index].alignment))
            sections[index] = sections[index]._replace(offset=start + len(kept))
            kept += moved
        kept += bytes(-(start + len(kept)) % 8)
        for index in cut:
            sections[index] = Section(*[0] * 10)
        struct.pack_into("<Q", header, 40, start + len(kept))
        kept += b"".join(SECTION.pack(*section) for section in sections)
        before = file.seek(0, 2)
        file.seek(0)
        file.write(header)
        file.seek(start)
        file.write(kept)
        return before - file.truncate()


if __name__ == "__main__":
    main()
