"""Results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg


class CompletedJob(dg.PipesClientCompletedInvocation):
    def __init__(
        self, session: dg.PipesSession, metadata: Mapping[str, Any], *, stored: Callable[[], None]
    ) -> None:
        super().__init__(session, metadata=metadata)
        self._stored = stored

    def get_results(self, *, implicit_materializations: bool = True) -> Any:
        found = super().get_results(implicit_materializations=implicit_materializations)

        class R(tuple):
            def __iter__(s):
                yield from super().__iter__()
                self._stored()

        return R(found)
