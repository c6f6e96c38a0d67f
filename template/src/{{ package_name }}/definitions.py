"""The project's definitions: everything below ``defs/``."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # A step that waits for a job costs next to nothing, so many may wait at once; by default Dagster runs as many
    # steps as this machine has cores.
    executor = dg.multiprocess_executor.configured({"max_concurrent": 16})
    return dg.Definitions.merge(found, dg.Definitions(executor=executor))
