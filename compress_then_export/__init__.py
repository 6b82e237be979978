"""The command: recipe, pipeline, models and data. The picture of the path is ``compress_then_export.pipeline``."""
