"""Which packages are under test, and how hypothesis runs."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PACKAGES = ("s2frames", "s2frames_httpx", "s2frames_trio")

# No test measures time, hypothesis included: a slow machine is no failure.
settings.register_profile(
    "s2frames",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# The same examples in every run.
settings.register_profile("ci", settings.get_profile("s2frames"), derandomize=True)
settings.load_profile("s2frames")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--installed",
        action="store_true",
        help="refuse to run unless the packages under test are in site-packages",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--installed"):
        return
    site_packages = Path(sysconfig.get_path("purelib")).resolve()
    for package in PACKAGES:
        spec = find_spec(package)
        origin = spec.origin if spec else None
        if origin is None or Path(origin).resolve().parent.parent != site_packages:
            raise pytest.UsageError(f"{package} comes from {origin}, not from {site_packages}")
