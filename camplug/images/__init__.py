"""Images: reading photographs, preprocessing, and writing pictures. Independent of models and explainers."""
