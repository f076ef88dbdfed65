"""Faults injected: killed and stopped processes, full disks, folders that cannot be written."""
