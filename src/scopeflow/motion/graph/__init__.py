"""Which tasks there are, in which order; never computes, knows no format."""
