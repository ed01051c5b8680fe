"""Sphinx: MyST Markdown, furo, warnings are errors (``make docs``)."""

from typing import Any

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
pygments_style = "default"
pygments_dark_style = "monokai"


def _accessible(_app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """What axe finds in pages as Sphinx makes them: boxes that scroll take the focus, headings have a level."""
    for name, changes in {
        "body": {
            "<pre>": '<pre tabindex="0">',
            '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
            '<th class="head"><p></p></th>': "<td></td>",
        },
        "furo_navigation_tree": {'role="heading"': 'role="heading" aria-level="2"'},
    }.items():
        for old, new in changes.items():
            context[name] = (context.get(name) or "").replace(old, new)


def setup(app: Any) -> None:
    """Behind the theme's own changes."""
    app.connect("html-page-context", _accessible, priority=900)
