"""What the components share of reading and writing artifacts: whole or absent, and what lies inside a pushed model."""
