"""Damaged files: whole ones, what is done to them, and processes that read them under limits."""
