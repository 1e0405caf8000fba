"""The loading of recipes: files and pairs are merged, checked against the schema, and made into a recipe."""
