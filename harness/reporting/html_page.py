"""The frame of a page that needs no network."""

import html


def page(name: str, style: str, body: str) -> str:
    """A whole HTML document. ``style``: rules of CSS, a line each; ``body``: HTML, its texts escaped already."""
    title = html.escape(name)
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
