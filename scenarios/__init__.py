"""Verifiers: each drives a real lab and proves what a curriculum item, or a claim of its sources, says."""
