"""The model of ``attributes`` that Dagster's tools see."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel


class Attributes(RootModel[dict[Any, Any]]):
    """Takes any mapping, for the component itself reads the file again and tells of mistakes with their lines."""
