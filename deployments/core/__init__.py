"""What a text classifier does, without Ray and HTTP: encode, batch, predict, postprocess."""
