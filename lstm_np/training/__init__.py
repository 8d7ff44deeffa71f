"""Training: recipes, the assembly of a run, its folder, and what a person sees of it."""

from lstm_np.training.recipes import Recipe, RecipeError, load_recipe, recipe_names
from lstm_np.training.run import Outcome, Place, run

__all__ = ["Outcome", "Place", "Recipe", "RecipeError", "load_recipe", "recipe_names", "run"]
