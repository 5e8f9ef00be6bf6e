"""A small world of roads and boxes, seen by cameras, in the formats of three driving data sets."""
