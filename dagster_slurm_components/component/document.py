"""Where a component's attributes were written, and how their templates are rendered."""

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster.components.resolved.scopes import LoadContextScope

from dagster_slurm_components.spec.place import Locate, with_templates
from dagster_slurm_components.spec.profiles import profile_values
from dagster_slurm_components.spec.source import Document, load_documents, parse_documents
from dagster_slurm_components.spec.templates import Renderer, render


def attributes_document(raw: Mapping[Any, Any], context: dg.ComponentLoadContext) -> Document:
    """Return the attributes of the component that is being loaded, which Dagster read as ``raw``.

    They are read again from its file, for Dagster's own parser keeps neither columns nor the spelling of values
    (``12:00:00`` is a number to it). Without a file, as in tests, they are written out first. What a person can't have
    meant as YAML is a SpecError.
    """
    tree = context.resolution_context.source_position_tree
    if tree is not None and os.path.isfile(tree.position.filename):
        file, line = tree.position.filename, tree.position.start.line
        status = os.stat(file)
        documents = _documents(file, status.st_mtime_ns, status.st_size)
        # Dagster counts a document from its first key, as we do; the nearest one survives a difference in that.
        document = min(documents, key=lambda each: abs(each.position().line - line))
        return document.child(("attributes",)) if document.data.get("attributes") else document.child(())
    path = context.path
    folder = path if path.is_dir() else path.parent
    objects: dict[str, Any] = {}
    text = yaml.safe_dump(_in_words(raw, objects), sort_keys=False, allow_unicode=True)
    document = parse_documents(text, str(folder / "attributes"))[0]
    return replace(document, data=with_templates(document.data, lambda text, _: objects.get(text, text)))


def _in_words(tree: Any, objects: dict[str, Any]) -> Any:
    """Return a tree in YAML's words: keys of assets as text, other objects of Dagster's as texts in their place."""
    if isinstance(tree, Mapping):
        return {key: _in_words(value, objects) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return [_in_words(value, objects) for value in tree]
    if tree is None or isinstance(tree, (str, int, float, date)):
        return tree
    if isinstance(tree, dg.AssetKey):
        return tree.to_user_string()
    objects[name := f"{{{{ object {len(objects)} }}}}"] = tree
    return name


def renderer(context: dg.ComponentLoadContext) -> Renderer:
    """Return what renders templates, with all the names that Dagster's own components offer.

    ``env`` is ours: the value of a variable stays text (``"007"`` is no number), and one that isn't set is an error.
    """
    scope = {
        **context.resolution_context.scope,
        "context": LoadContextScope(context),  # type: ignore[no-untyped-call]
        "project_root": str(context.project_root.resolve()),
        "profile": profile_values(start=context.path),
    }
    scope.pop("env", None)

    def rendered(tree: Any, position_of: Locate) -> Any:
        return render(tree, position_of, scope=scope, partitioned=True)

    return rendered


@lru_cache(maxsize=16)
def _documents(file: str, mtime_ns: int, size: int) -> tuple[Document, ...]:
    """Read a file once for all components in it."""
    return load_documents(Path(file))
