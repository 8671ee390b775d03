"""Remove from an environment what no run of the job needs, and say how much each of it was. The image's build runs it.

    /opt/finetune/venv/bin/python scripts/slim_image.py

It works on the environment of the Python that runs it. The packages' metadata stay, for the bill of materials.
The Dockerfile strips the shared libraries afterwards.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

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


if __name__ == "__main__":
    main()
