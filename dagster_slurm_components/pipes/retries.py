"""stub"""

import dagster as dg


def will_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    return False
