"""Where work runs: clients, clusters, submission, progress. The only importer of distributed."""
