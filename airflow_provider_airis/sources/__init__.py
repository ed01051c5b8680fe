"""The engines under the operators that collect, one a kind of source."""
