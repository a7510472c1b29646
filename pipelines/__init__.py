"""Pipelines built from the components, and the runners that execute them."""
