"""Adapters to other libraries, one module or folder each: the only places that import those."""
