"""Image files, folders, pictures and arrays come in; views and tensors, made by a stated contract, go out."""

from __future__ import annotations
