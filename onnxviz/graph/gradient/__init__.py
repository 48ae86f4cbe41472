"""A model comes in; a graph that also computes derivatives of its values goes out."""
