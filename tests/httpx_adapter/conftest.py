"""What these tests share with those of every adapter: worlds, and running async tests."""

from __future__ import annotations

from scenes import flavour, lite_url, no_certificates, pytest_pyfunc_call, s2, virtual_time

__all__ = ["flavour", "lite_url", "no_certificates", "pytest_pyfunc_call", "s2", "virtual_time"]
