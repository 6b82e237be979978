"""Pictures of the report, as inline SVG: no scripts, no fonts to fetch, colours from the page's theme."""
