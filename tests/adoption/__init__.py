"""What stood in a database before its trail: baselines, and history that another tool wrote."""
