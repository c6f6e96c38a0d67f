"""A run launcher that says it can resume runs, as that of Kubernetes does."""

from __future__ import annotations

from dagster._core.launcher.default_run_launcher import DefaultRunLauncher


class ResumingRunLauncher(DefaultRunLauncher):
    """The default launcher; nobody asks it to launch anything."""

    @property
    def supports_resume_run(self) -> bool:
        """Whether runs can be resumed."""
        return True
