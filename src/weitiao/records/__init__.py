"""From a data file to records that are read, checked, split and rendered with a loss mask."""
