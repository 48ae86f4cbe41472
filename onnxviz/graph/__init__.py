"""ONNX in, ONNX and facts about it out: nothing in this folder runs a model or reads an image."""
