"""Every test here runs with every flavour of client, in every place."""

from __future__ import annotations

from scenes import flavour, lite_url, no_certificates, pytest_pyfunc_call
from scenes import s2_everywhere as s2

__all__ = ["flavour", "lite_url", "no_certificates", "pytest_pyfunc_call", "s2"]
