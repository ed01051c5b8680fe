"""The shipped Dags as a Dag bundle, so that ``pip install`` brings them and an upgrade updates them."""

from __future__ import annotations

from pathlib import Path

from airflow.dag_processing.bundles.base import BaseDagBundle


class AirisDagBundle(BaseDagBundle):
    """Serves the Dags of the installed package; name it in ``[dag_processor] dag_bundle_config_list``.

    That list replaces Airflow's default, so name your own Dags folder in it as well:

    .. code-block:: json

        [{"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
         {"name": "airis", "classpath": "airflow_provider_airis.dag_bundle.AirisDagBundle", "kwargs": {}}]
    """

    supports_versioning = False

    @property
    def path(self) -> Path:
        """The folder with the Dag files: in a wheel inside the package, in a checkout beside it."""
        package = Path(__file__).resolve().parent
        installed = package / "dags"
        return installed if installed.is_dir() else package.parent / "dags"

    def get_current_version(self) -> str | None:
        """No version: the files change with the installed package only."""
        return None

    def refresh(self) -> None:
        """Nothing to fetch."""
