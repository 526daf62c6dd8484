"""Applications that nobody here wrote, under audit."""
