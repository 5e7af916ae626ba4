"""Everything else is in setup.cfg, which cannot name an extension.

The five in C are optional: without a compiler or Python's headers the same is done in Python or by a library.
"""

from setuptools import Extension, setup

SOURCES = ("scheduler/_rows", "telemetry/_lines", "http/_heads", "http/_hpack", "rewrite/_scan")

setup(
    ext_modules=[
        Extension(f"lbarray.{name.replace('/', '.')}", [f"lbarray/{name}.c"], py_limited_api=True, optional=True)
        for name in SOURCES
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
