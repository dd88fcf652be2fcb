"""Cleaning: repairs, changes and signs of bad rows, each step named and told."""

from weitiao.records.cleaning.clean import Changed, Cleaned, Cleaner, Found
from weitiao.records.cleaning.language import main_language, main_languages

__all__ = ["Changed", "Cleaned", "Cleaner", "Found", "main_language", "main_languages"]
