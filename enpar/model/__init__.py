"""The encoders of sentences, entities and entity pairs, and joint extraction on top of them."""
