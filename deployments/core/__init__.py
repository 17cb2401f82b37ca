"""What a text classifier does, without Ray and without HTTP: encode, batch, predict, postprocess."""
