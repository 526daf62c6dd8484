"""Domain events: `record`, durable ones, and what a rolled-back transaction leaves."""
