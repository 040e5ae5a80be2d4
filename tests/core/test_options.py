from __future__ import annotations

from typing import Any, get_type_hints

import attrs
import pytest

from s2frames.options import AppendOptions, ReadOptions
from s2frames.settings import AppendSettings, ReadSettings

# Adapters decide how they send.
ADAPTERS_OWN = {"burst_batches"}

PAIRS = [
    pytest.param(AppendOptions, AppendSettings, id="append"),
    pytest.param(ReadOptions, ReadSettings, id="read"),
]


def types_of(settings: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(settings)
    return {a.name: hints[a.name] for a in attrs.fields(settings) if a.name not in ADAPTERS_OWN}


@pytest.mark.parametrize(("options", "settings"), PAIRS)
def test_options_are_the_settings(options: Any, settings: type[Any]) -> None:
    assert get_type_hints(options) == types_of(settings)


@pytest.mark.parametrize(("options", "settings"), PAIRS)
def test_every_option_may_be_left_out(options: Any, settings: type[Any]) -> None:
    assert options.__required_keys__ == frozenset()
    assert settings(**options()) == settings()


@pytest.mark.parametrize(("options", "settings"), PAIRS)
def test_settings_take_every_option_and_no_other(options: Any, settings: type[Any]) -> None:
    default = settings()
    assert settings(**{name: getattr(default, name) for name in options.__annotations__}) == default
    with pytest.raises(TypeError, match="unknown"):
        settings(unknown=1)
