"""A clinic under audit: who looked at whose chart, why, and what is left of a person who is erased."""
