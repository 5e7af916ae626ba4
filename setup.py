"""Everything else is in setup.cfg, which cannot name an extension.

The extension is optional: without a compiler or Python's headers the same loops run in Python.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("lbarray.scheduler._rows", ["lbarray/scheduler/_rows.c"], py_limited_api=True, optional=True),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
