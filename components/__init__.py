"""TFX components that search for a structure, export it and retrain it."""
