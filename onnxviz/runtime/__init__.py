"""onnxruntime behind one handle: a model file and its two contracts come in, arrays come out."""
