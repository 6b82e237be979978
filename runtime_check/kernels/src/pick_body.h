/* Tiny images, pixel by pixel from a list, once for each instruction set. Who includes this may bring FEW_PIXELS, and
   pick_few(pixels, pixel_count, picks, count, output) for images of no more of them. */

static void pick(const float *pixels, int64_t pixel_count, const int16_t *picks, int64_t count, float *output) {
#ifdef FEW_PIXELS
  if (pixel_count <= FEW_PIXELS) {
    pick_few(pixels, pixel_count, picks, count, output);
    return;
  }
#endif
  float values[PICKED];
  memcpy(values, pixels, (size_t)pixel_count * sizeof *values);
  values[pixel_count] = 0.0f;
  for (int64_t i = 0; i < count; i++) output[i] = values[picks[i]];
}
