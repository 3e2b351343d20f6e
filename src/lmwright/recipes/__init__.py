"""Recipes: the stages of a model's life as stories that read from top to bottom. Know no terminal and no HTTP."""
