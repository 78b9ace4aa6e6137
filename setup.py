"""Builds the optional kernel of the update ring; everything else is in pyproject.toml.

The C file uses no Python API and is loaded through ctypes. Without a compiler the package installs all
the same and computes the same numbers in torch.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "spectraledge.stream._append",
            sources=["src/spectraledge/stream/append.c", "src/spectraledge/stream/sketch.c"],
            extra_compile_args=["-O3", "-fopenmp-simd", "-ffp-contract=fast", "-pthread"],
            extra_link_args=["-pthread"],
            optional=True,
        )
    ]
)
