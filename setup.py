"""Everything else is in setup.cfg, which cannot name an extension.

The five in C are optional: without a compiler or Python's headers the same is done in Python or by a library.

With ``LBARRAY_COMPILE=1`` the modules that every request passes through are compiled too, by Cython, from the very
same files: a sixth less of Python's share of a request. It is a choice, since a compiled module takes the place of its
source until it is built anew.
"""

import os

from setuptools import Extension, setup

COMPILE = os.environ.get("LBARRAY_COMPILE") == "1"
HOT = (
    "lbarray.backends.assignment",
    "lbarray.backends.connections",
    "lbarray.backends.pool",
    "lbarray.backends.service",
    "lbarray.http.events",
    "lbarray.http.fields",
    "lbarray.http.forwarding",
    "lbarray.http.h2_connection",
    "lbarray.http.h2_floods",
    "lbarray.http.h2_frames",
    "lbarray.http.h2_heads",
    "lbarray.http.h2_sending",
    "lbarray.http.h2_streams",
    "lbarray.http.heads",
    "lbarray.http.requests",
    "lbarray.http.responses",
    "lbarray.http.target",
    "lbarray.telemetry.access_log",
    "lbarray.telemetry.counters",
    "lbarray.worker.backend",
    "lbarray.worker.client",
    "lbarray.worker.client_h2",
    "lbarray.worker.exchange",
    "lbarray.worker.exchange_state",
    "lbarray.worker.h2_stream",
    "lbarray.worker.loop",
    "lbarray.worker.peer",
    "lbarray.worker.responding",
    "lbarray.worker.stream",
    "lbarray.worker.tls.stream",
)

extensions = [
    Extension("lbarray.scheduler._rows", ["lbarray/scheduler/_rows.c"], py_limited_api=True, optional=True),
    Extension("lbarray.telemetry._lines", ["lbarray/telemetry/_lines.c"], py_limited_api=True, optional=True),
    Extension("lbarray.http._heads", ["lbarray/http/_heads.c"], py_limited_api=True, optional=True),
    Extension("lbarray.http._hpack", ["lbarray/http/_hpack.c"], py_limited_api=True, optional=True),
    Extension("lbarray.rewrite._scan", ["lbarray/rewrite/_scan.c"], py_limited_api=True, optional=True),
]
more = {"options": {"bdist_wheel": {"py_limited_api": "cp311"}}}
if COMPILE:
    more = {"setup_requires": ["cython>=3.1"]}
    try:
        from Cython.Build import cythonize
    except ImportError:  # asked only what it needs
        pass
    else:
        extensions += cythonize(
            [Extension(name, [name.replace(".", "/") + ".py"], optional=True) for name in HOT],
            build_dir="build/cython",
            # Annotations are for the type checker: bytes that come as a memoryview are no mistake.
            compiler_directives={"language_level": "3", "annotation_typing": False},
            quiet=True,
        )

setup(ext_modules=extensions, **more)
