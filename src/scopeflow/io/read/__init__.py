"""One module for each format to read; each makes a Source."""
