"""The parts of Dagster's own executors that have no public name, in one place.

Dagster offers no public way to write an executor beyond one that starts a process for each step: what follows a plan
(``ActiveExecution``), claims pools (``InstanceConcurrencyContext``), executes one step in this process or in another
is private. All of it is used as ``dagster._core.executor.multiprocess`` uses it (1.13);
``tests/executor/test_dagster_parts.py`` names the versions for which that was seen to hold.
"""

from dagster_slurm_components.pipes.private import private_parts

with private_parts("has other executors inside", "leave `executor=slurm_executor` out of your definitions"):
    from dagster._core.errors import DagsterSubprocessError
    from dagster._core.events import EngineEventData
    from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
    from dagster._core.execution.context_creation_job import PlanExecutionContextManager
    from dagster._core.execution.plan.active import ActiveExecution
    from dagster._core.execution.plan.execute_plan import _trigger_hook as trigger_hooks
    from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
    from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.plan.state import KnownExecutionState
    from dagster._core.execution.plan.step import ExecutionStep
    from dagster._core.execution.retries import RetryMode
    from dagster._core.executor.child_process_executor import ChildProcessCrashException
    from dagster._core.executor.multiprocess import execute_step_out_of_process
    from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
    from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType, ComputeLogManager
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
    from dagster._core.storage.runs.sqlite import SqliteRunStorage
    from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
    from dagster._utils.error import serializable_error_info_from_exc_info
    from dagster_shared.error import SerializableErrorInfo


def serializable_error_info(error: BaseException) -> SerializableErrorInfo:
    """Return an error as Dagster stores it."""
    return serializable_error_info_from_exc_info((type(error), error, error.__traceback__))  # type: ignore[arg-type]
