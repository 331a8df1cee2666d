"""The four pre-training objectives, the views that they ask for, and the model that learns from them."""
