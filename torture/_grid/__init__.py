"""Nasty inputs, what is fitted to them, and how a result is judged."""
