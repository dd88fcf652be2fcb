"""Work that takes longer than a request: begun with one call, asked after with others."""
