"""Sources of masklets other than SAM 2."""
