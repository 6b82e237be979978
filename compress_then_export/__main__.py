"""``python -m compress_then_export``."""

from compress_then_export.cli import main

main()
