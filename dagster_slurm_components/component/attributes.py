"""The model of ``attributes`` that Dagster's tools see, and its strict JSON Schema."""

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from dagster_slurm_components.spec.schemas import definitions, inlined, shipped_definitions, standalone

_GROUPS = ("dagster_slurm_components.launchers", "dagster_slurm_components.environments")


class Attributes(RootModel[dict[Any, Any]]):
    """Takes any mapping, for the component itself reads the file again and tells of mistakes with their lines.

    What Dagster derives from a component's fields is too loose to be of use: each field takes any text.
    """

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the strict schema; ``dg check yaml`` and ``dg utils inspect-component`` use it."""
        return attributes_schema()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the strict schema as a part of another one, which has no place for our definitions."""
        schema = attributes_schema()
        return dict(inlined({key: value for key, value in schema.items() if key != "$defs"}, schema["$defs"]))


@cache
def attributes_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``attributes``, with the launchers and environments of other packages.

    Dagster asks for it whenever definitions are loaded, so what is shipped is read: making it takes 0.2 s.
    """
    extended = any(entry_points(group=group) for group in _GROUPS)
    shipped = None if extended else shipped_definitions()
    return made_schema() if shipped is None else _attributes(shipped)


def made_schema() -> dict[str, Any]:
    """Make the JSON Schema of ``attributes`` from the models."""
    return _attributes(definitions())


def _attributes(all_definitions: dict[str, Any]) -> dict[str, Any]:
    attributes = all_definitions["DefsFile"]["then"]["properties"]["attributes"]
    return standalone({**attributes, "type": "object"}, all_definitions)
