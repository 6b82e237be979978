"""One small recipe for tests of single stages: a narrow network on a few hundred digits."""

from pathlib import Path

from click.testing import CliRunner, Result

from compress_then_export.cli import main

RECIPE = """
model: {{source: "builtin:smallcnn", args: {{width: 8}}}}
data: {{source: digits, train_size: 320, test_size: 60}}
train: {{epochs: 1, batch_size: 32, lr: 0.05, seed: 3}}
compress: [{stage}]
check: {{max_drop: 100, seconds: 0.1}}
"""


def run(folder: Path, stage: str, *arguments: object) -> Result:
    """The command ``run --json`` on the recipe with ``stage`` after an epoch of dense training."""
    (folder / "recipe.yaml").write_text(RECIPE.format(stage=stage))
    command = ["run", folder / "recipe.yaml", "--json", *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in command], catch_exceptions=False)
