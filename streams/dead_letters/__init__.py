"""Records that could not be used: listed, mended, sent again."""
