"""Histories by month."""
