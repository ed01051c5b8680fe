"""Sphinx: MyST Markdown, furo, warnings are errors (``make docs``)."""

from airflow_provider_airis import __version__

project = "airflow-provider-airis"
author = "the project's contributors"
copyright = author
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "substitution", "attrs_inline"]
myst_substitutions = {"version": __version__}
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"AIRIS-MON for Apache Airflow {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_favicon = "../airflow_provider_airis/hub/static/icon.svg"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f4fbf", "color-brand-content": "#1f4fbf"},
    "dark_css_variables": {"color-brand-primary": "#8db4ff", "color-brand-content": "#8db4ff"},
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
