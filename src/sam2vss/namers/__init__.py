"""Ways to find the classes of masklets besides the plain vote: by features, by a learned fusion, by text."""
