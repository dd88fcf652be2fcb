"""The data files that come with weitiao; data only, which no room imports."""
