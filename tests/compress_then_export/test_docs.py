"""The documents tell the truth: recipes in them are valid, links lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from compress_then_export.recipe import Recipe, parse_recipe, read_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
RECIPES = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
]


@pytest.mark.parametrize(("page", "text"), RECIPES)
def test_recipes_in_the_documents_are_valid(page: str, text: str) -> None:
    parse_recipe(yaml.safe_load(text))


def test_the_recipe_page_shows_every_key_with_its_default() -> None:
    (text,) = [text for page, text in RECIPES if page == "recipe.md"]
    shown = yaml.safe_load(text)
    for section in ("train", "export", "check"):
        defaults = Recipe.model_fields[section].annotation().model_dump(mode="json")
        assert shown[section] == defaults, section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_recipe_files_are_valid(path: Path) -> None:
    read_recipe(path)
