"""Cohorts that need no scans: a template, and people simulated from it."""
