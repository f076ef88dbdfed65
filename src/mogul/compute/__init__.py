"""Devices, floating-point types, seeds, and files that are whole or absent."""
