"""The frame of a page that needs no network."""

from harness.reporting.escape import escape_html


def page(name: str, style: str, body: str) -> str:
    """Return an HTML document. ``style``: CSS rules, a line each; ``body``: HTML with escaped texts."""
    title = escape_html(name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
{style}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
