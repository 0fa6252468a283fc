"""One module per input format; each holds a frozen, picklable source class."""
