"""Agreement of two codings of the same films, of people or models."""
